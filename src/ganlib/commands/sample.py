"""The command ``sample``."""

import json

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "draw from a trained run into a folder or file"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False, description="Draw from a run folder or a .gan file. The same seed gives the same items."
    )
    made.add_argument("run", type=str, help="a run folder or a .gan file")
    made.add_argument("-n", "--number", type=int, default=64, help="how many")
    made.add_argument(
        "--out", type=str, required=True, help="a folder (PNG files), or a file: .npz, .png (a grid), .csv (vectors)"
    )
    made.add_argument("--seed", type=int, default=0, help="of the latents")
    made.add_argument("--labels", type=str | None, default=None, help="classes by name, taken in turn: 3,7")
    made.add_argument("--truncation", type=float | None, default=None, help="largest latent in standard deviations")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.doors import sample

    count = sample(
        options.run, options.number, options.out, options.seed, options.labels, options.truncation, options.device
    )
    print(json.dumps({"items": count, "out": options.out}) if options.json else f"{count:,} items in {options.out}")
