"""The command ``directions``."""

import json
from typing import Literal

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "find what the latent changes, as rows of pictures"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Find the directions along which pictures change most; leaves directions.png, a row of pictures "
        "for each from -3 to +3 standard deviations, and directions.npz.",
    )
    made.add_argument("run", type=str, help="a run folder or a .gan file")
    made.add_argument("--out", type=str, required=True, help="a folder")
    made.add_argument("--number", type=int, default=8, help="how many directions")
    made.add_argument(
        "--method",
        type=Literal["sefa", "pca"],
        default="sefa",
        help="from the weights by which a latent enters, or the principal components of what they make of many",
    )
    made.add_argument("--seed", type=int, default=0, help="of the picture in the middle")
    made.add_argument("--label", type=str | None, default=None, help="its class by name; default the drawn one")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.exploring import directions_into

    given = options.as_dict()
    as_json = given.pop("json")
    told = directions_into(given.pop("run"), given.pop("out"), **given)
    print(json.dumps(told) if as_json else f"{told['directions']} directions ({told['method']}) in {told['out']}")
