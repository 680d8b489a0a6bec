"""The command ``show``."""

import json

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "say where a run is, and draw its pictures"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False, description="Say where a run is; draw its grid, or the animation of its training."
    )
    made.add_argument("run", type=str, help="a run folder")
    made.add_argument("--grid", type=str | None, default=None, help="write the newest sample grid to this .png")
    made.add_argument("--animation", type=str | None, default=None, help="write the grids over time to this .gif")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.doors import show

    told = show(options.run, options.grid, options.animation)
    if options.json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:12} {value}")
