"""The command ``animate``."""

import json

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "change pictures along a way of attributes, as an animation that repeats"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Edit pictures step by step from what they are to each stop of a way and back to the beginning.",
    )
    made.add_argument("run", type=str, help="a run folder or a .gan file of the recipe attributes")
    made.add_argument("pictures", type=str, help="a picture, or a folder of pictures to be side by side")
    made.add_argument("--out", type=str, required=True, help="a .gif, .webp or .apng, or a .png of all its pictures")
    made.add_argument(
        "--way",
        type=str,
        required=True,
        help="the stops: attributes and numbers, with ; between stops, such as 'smile=1;smile=1,age=0.3'",
    )
    made.add_argument("--steps", type=int, default=12, help="how many steps from each stop to the next")
    made.add_argument("--seconds", type=float, default=4.0, help="the time of one round")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.exploring import animate_into

    given = options.as_dict()
    as_json = given.pop("json")
    told = animate_into(given.pop("run"), given.pop("pictures"), given.pop("out"), **given)
    print(json.dumps(told) if as_json else f"{told['frames']} frames in {told['out']}")
