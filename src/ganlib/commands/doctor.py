"""The command ``doctor``."""

import json
import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "say what is wrong with a run, and what to change"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False, description="What is wrong with a run, and what to change. Exits with 0 if healthy, else 1."
    )
    made.add_argument("run", type=str, help="a run folder, also one that is being trained, or a folder of shards")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.data import sharded
    from ganlib.diagnosis import of_run

    if sharded.is_prepared(Path(options.run)):
        changed = [str(path) for path in sharded.changed(Path(options.run))]
        remedy = "restore them, or prepare the shards again in another folder"
        text = f"not as they were written: {', '.join(changed)}; {remedy}" if changed else "all shards are as written"
        print(json.dumps({"healthy": not changed, "changed": changed}) if options.json else text)
        sys.exit(1 if changed else 0)
    told = of_run(options.run)
    print(told.to_json() if options.json else told)
    sys.exit(0 if told.healthy else 1)
