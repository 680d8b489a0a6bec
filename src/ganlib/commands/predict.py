"""The command ``predict``."""

import json
from typing import Literal

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "translate, restore, enlarge or reconstruct pictures with a trained run"


def parser() -> ArgumentParser:
    made = ArgumentParser(allow_abbrev=False, description="What a trained run makes of pictures.")
    made.add_argument("run", type=str, help="a run folder or a .gan file")
    made.add_argument("pictures", type=str, help="a picture, a folder of pictures, or an archive or array of them")
    made.add_argument("--out", type=str, required=True, help="a folder (PNG files of the same names) or a .npz")
    made.add_argument(
        "--label", type=str | None, default=None, help="the class of all pictures, by name; else that of each's folder"
    )
    made.add_argument(
        "--direction",
        type=Literal["AtoB", "BtoA"] | None,
        default=None,
        help="between two sets of pictures; A is the first; default AtoB",
    )
    made.add_argument(
        "--attributes",
        type=str | None,
        default=None,
        help="what edited pictures shall have, such as smile=1,age=0.3 or class=cat; the rest stays as it is",
    )
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.doors import predict
    from ganlib.picturing import told

    made = predict(
        options.run,
        options.pictures,
        options.out,
        options.label,
        options.direction,
        options.device,
        options.json,
        attributes=options.attributes,
    )
    if options.json:
        print(json.dumps({"items": made.items, "out": options.out, "unreadable": made.unreadable}))
        return
    print(f"{made.items:,} pictures in {options.out}")
    if made.unreadable:
        print(f"{len(made.unreadable):,} cannot be used and are left out: {told(made.unreadable)}")
