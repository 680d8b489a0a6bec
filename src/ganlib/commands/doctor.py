"""The command ``doctor``."""

import sys

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "say what is wrong with a run, and what to change"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False, description="What is wrong with a run, and what to change. Exits with 0 if healthy, else 1."
    )
    made.add_argument("run", type=str, help="a run folder, also one that is being trained")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.diagnosis import of_run

    told = of_run(options.run)
    print(told.to_json() if options.json else told)
    sys.exit(0 if told.healthy else 1)
