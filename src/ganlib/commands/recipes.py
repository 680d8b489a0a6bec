"""The command ``recipes``."""

import json

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

from ganlib import recipes

HELP = "list the recipes, with what each is and its paper"


def parser() -> ArgumentParser:
    made = ArgumentParser(allow_abbrev=False, description="One line for each recipe: name, what it is, paper.")
    made.add_argument("--json", action="store_true", help="JSON on standard output")
    return made


def run(options: Namespace) -> None:
    told = {name: recipes.find(name)().summary for name in recipes.names()}
    if options.json:
        print(json.dumps(told))
        return
    for name, summary in told.items():
        print(f"{name:11} {summary}{'  [default]' if name == recipes.DEFAULT else ''}")
