"""The command ``interpolate``."""

import json

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "walk from picture to picture, as an animation that repeats"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Write a walk over some pictures of a seed and back to the first, as an animation without a jump.",
    )
    made.add_argument("run", type=str, help="a run folder or a .gan file")
    made.add_argument("--out", type=str, required=True, help="a .gif, .webp or .apng, or a .png of all its pictures")
    made.add_argument("--keys", type=int, default=6, help="how many pictures of the seed the walk passes")
    made.add_argument("--steps", type=int, default=16, help="how many steps from each to the next")
    made.add_argument("--seconds", type=float, default=8.0, help="the time of one round")
    made.add_argument("--seed", type=int, default=0, help="of the latents")
    made.add_argument(
        "--label", type=str | None, default=None, help="a class by name; of several (3,7) the walks are side by side"
    )
    made.add_argument("--truncation", type=float | None, default=None, help="largest latent in standard deviations")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.exploring import interpolate_into

    given = options.as_dict()
    as_json = given.pop("json")
    told = interpolate_into(given.pop("run"), given.pop("out"), **given)
    print(json.dumps(told) if as_json else f"{told['pictures']} pictures in {told['out']}")
