"""The command ``compare``."""

import sys

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "train several recipes for the same budget, and judge them alike"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Train several recipes on the same data for the same budget; leaves a table and a picture. "
        "Run the same command again to go on where it stopped, also with more recipes or seeds.",
    )
    made.add_argument("data", type=str, help="as for fit: 'digits', 'stacked_digits', a folder, a file")
    made.add_argument("--out", type=str, required=True, help="a folder for the runs, the table and the picture")
    made.add_argument(
        "--recipes",
        type=str | None,
        default=None,
        help="names with commas between, perhaps with options: r3,dcgan:width=32; default the usual ones",
    )
    made.add_argument("--minutes", type=float | None, default=None, help="the time of each training")
    made.add_argument("--items", type=int | None, default=None, help="or the items that each sees")
    made.add_argument(
        "--cpu-seconds", type=float | None, default=None, help="or its time on the processor, with one thread"
    )
    made.add_argument("--seeds", type=int, default=1, help="how many trainings of each recipe")
    made.add_argument("--size", type=str | None, default=None, help="cut and resize pictures: 64, or 64x96")
    made.add_argument("--validation", type=float | None, default=None, help="the share to hold out and to judge by")
    made.add_argument("--unconditional", type=bool, default=False, help="do not use the labels")
    made.add_argument("--number", type=int, default=10_000, help="so many samples of each are judged")
    made.add_argument("--threads", type=int | None, default=None, help="processor threads; default all")
    made.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    made.add_argument("--json", action="store_true", help="JSON on standard output, nothing for people")
    made.add_argument("--quiet", action="store_true", help="no progress")
    return made


def run(options: Namespace) -> None:
    from ganlib.comparison import compare
    from ganlib.comparison.table import markdown
    from ganlib.doors import size_given

    given = options.as_dict()
    names = given.pop("recipes")
    given["num_samples"] = given.pop("number")
    as_json, quiet = given.pop("json"), given.pop("quiet")
    found = compare(
        given.pop("data"),
        None if names is None else [name.strip() for name in names.split(",")],
        progress="none" if quiet or as_json else "auto",
        **{**given, "size": size_given(given["size"])},
    )
    print(found.to_json() if as_json else f"{markdown(found)}\nthe picture: {given['out']}/compare.png")
    sys.exit(0 if any(entry.state == "finished" for entry in found.entries) else 1)
