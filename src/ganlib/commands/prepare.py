"""The command ``prepare``."""

import json

from jsonargparse import ArgumentParser, Namespace  # pyright: ignore[reportPrivateImportUsage]

HELP = "make shards of pictures, for data larger than memory"


def parser() -> ArgumentParser:
    made = ArgumentParser(
        allow_abbrev=False,
        description="Write pictures, cut and resized, to tars that fit reads piece by piece. Run again to go on.",
    )
    made.add_argument("source", type=str, help="what fit reads: a folder of pictures, a zip, tars, .npz, ...")
    made.add_argument("--out", type=str, required=True, help="a new folder for the shards")
    made.add_argument("--size", type=str | None, default=None, help="cut and resize pictures: 64, or 64x96")
    made.add_argument("--split", type=str, default="train", help="the part of a published data set: train or test")
    made.add_argument("--shard_items", type=int, default=10_000, help="items in one tar")
    made.add_argument("--json", action="store_true", help="one JSON line on standard output")
    return made


def run(options: Namespace) -> None:
    from ganlib.doors import prepare

    told = prepare(options.source, options.out, options.size, options.split, options.shard_items, options.json)
    if options.json:
        print(json.dumps(told))
        return
    print(f"{told['items']:,} items in {told['out']}; train on them: ganlib fit {told['out']} --out runs/NAME")
    if told["unreadable"]:
        print(
            f"{told['unreadable']:,} could not be read and are left out, the first {told['first_unreadable']}; "
            "all are listed in shards.json"
        )
