"""Pairs of pictures: folders of equal names, pictures side by side, or two arrays."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ganlib.data import folders
from ganlib.data.dataset import Data
from ganlib.data.gather import Gathering, gather
from ganlib.data.images import read_header
from ganlib.data.load import load, readable, size_of
from ganlib.data.store import Options
from ganlib.errors import DataError, MissingError, UsageError

ACCEPTED = (
    "accepted are a folder with two folders of pictures of equal names (A/ is given, B/ is wanted), a folder of "
    "pictures that are two side by side (the left one is given), or two arrays of as many items (given, wanted)"
)


def load_pairs(source: object, *, size: tuple[int, int] | int | None = None, split: str = "train") -> Data:
    """Read pairs: the items are the second of each, what is wanted, and come with the first, what is given.

    Both have the same height and width (`size` cuts and resizes both), and each its own number of channels. Raises
    :class:`MissingError`, :class:`UsageError` and :class:`DataError`, with the first five names that have no partner.
    """
    if isinstance(source, Data):
        if source.conditions is None:
            raise UsageError(f"{source.source} holds single items, not pairs; {ACCEPTED}")
        return source
    if isinstance(source, tuple | list) and len(source) == 2:
        given, wanted = (load(side, size=size, split=split) for side in source)
        if unreadable := (*given.unreadable, *wanted.unreadable):
            name, why = unreadable[0]
            raise DataError(
                f"{name} cannot be read ({why}), and what is left would stand beside other partners; mend it or leave "
                "both out, or give a folder with A/ and B/, where names say what belongs together"
            )
        return joined(given, wanted, "the two given")
    if not isinstance(source, str | Path):
        raise UsageError(f"cannot read pairs from {type(source).__name__}; {ACCEPTED}")
    folder = Path(source).expanduser()
    if not folder.exists():
        raise MissingError(f"{folder} does not exist; {ACCEPTED}")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; {ACCEPTED}")
    options = Options(size_of(size), split)
    with readable(folder):
        return _from_folder(folder, options)


def joined(given: Data, wanted: Data, source: str) -> Data:
    """The pairs of two sets in the same order. Raises :class:`DataError` where number, height or width differ."""
    if given.spec.kind != "image" or wanted.spec.kind != "image":
        raise DataError(f"{source} are {given.spec.kind}s and {wanted.spec.kind}s; pairs are of pictures")
    if len(given) != len(wanted):
        raise DataError(f"{source} have {len(given):,} and {len(wanted):,} items; each needs its partner")
    if given.spec.shape[1:] != wanted.spec.shape[1:]:
        sides = " and ".join("x".join(map(str, data.spec.shape[1:])) for data in (given, wanted))
        raise DataError(f"{source} are of {sides} pixels (height x width); pass size=64 (--size 64) to make them equal")
    items, conditions = (data.take(np.arange(len(data))) for data in (wanted, given))
    spec = replace(wanted.spec, classes=(), condition=replace(given.spec, classes=()))
    return Data(items, None, spec, source, (*given.unreadable, *wanted.unreadable), conditions=conditions)


def _from_folder(folder: Path, options: Options) -> Data:
    names = [name for name in folders.files_below(folder, []) if folders.is_picture(name)]
    if not names:
        raise DataError(f"{folder} has no pictures; {ACCEPTED}")
    try:
        prefix = folders.split_folder(names, options.split)
    except DataError:
        prefix = ""  # the splits may be within the two folders
    kept = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    tops = sorted({name.split("/")[0] for name in kept}, key=folders.natural)
    nested = all("/" in name for name in kept)
    if nested and len(tops) == 2:
        return _two_folders(folder, (f"{prefix}{tops[0]}/", f"{prefix}{tops[1]}/"), options)
    if nested and len(tops) > 2:
        raise DataError(f"{folder} has {len(tops)} folders ({', '.join(tops[:5])}); {ACCEPTED}")
    return _side_by_side(folders.from_folder(folder, names, None, options), options)


def _two_folders(folder: Path, sides: tuple[str, str], options: Options) -> Data:
    below = [dict(_named(folder, side, options.split)) for side in sides]
    first, second = (names.keys() for names in below)
    if alone := sorted(first ^ second, key=folders.natural):
        listed = ", ".join(f"{sides[name in second]}{name}" for name in alone[:5])
        raise DataError(
            f"{len(alone):,} pictures in {folder} have no partner of the same name, the first {listed}"
            f"{', ...' if len(alone) > 5 else ''}; pairs are pictures of equal names in {sides[0]} and {sides[1]}"
        )
    stems = sorted(first, key=folders.natural)
    made = [_gathered(folder, [names[stem] for stem in stems], options) for names in below]
    kept = [stem for row, stem in enumerate(stems) if all(row in rows for _, rows in made)]
    if len(kept) < len(stems):  # what cannot be read on one side leaves the other without its partner
        places = {stem: row for row, stem in enumerate(stems)}
        chosen = [data.subset(np.array([rows[places[stem]] for stem in kept])) for data, rows in made]
    else:
        chosen = [data for data, _ in made]
    return replace(joined(chosen[0], chosen[1], f"{sides[0]} and {sides[1]} of {folder}"), source=str(folder))


def _named(folder: Path, side: str, split: str) -> list[tuple[str, str]]:
    """Name without its ending, and name, of the pictures below a side; those of the split where it has splits."""
    names = [name for name in folders.files_below(folder / side, []) if folders.is_picture(name)]
    prefix = folders.split_folder(names, split) if any("/" in name for name in names) else ""
    kept = [name for name in names if name.startswith(prefix)]
    stems = [str(PurePosixPath(name.removeprefix(prefix)).with_suffix("")) for name in kept]
    if twice := [stem for stem in set(stems) if stems.count(stem) > 1]:
        raise DataError(f"{folder / side} has several pictures named {sorted(twice)[0]}; give each its own name")
    return [(stem, side + name) for stem, name in zip(stems, kept, strict=True)]


def _gathered(folder: Path, names: list[str], options: Options) -> tuple[Data, dict[int, int]]:
    """The pictures that can be read, and the row of each by its place in `names`."""
    shown = [folders.printable(name) for name in names]
    data = gather(Gathering(str(folder), shown, lambda number: folder / names[number]), options)
    bad = {name for name, _ in data.unreadable}
    kept = [place for place, name in enumerate(shown) if name not in bad]
    return data, {place: row for row, place in enumerate(kept)}


def _side_by_side(found: Gathering, options: Options) -> Data:
    if options.size is not None:
        height, width = options.size
        for number, name in enumerate(found.names):
            try:
                size = read_header(found.content(number)).size
            except Exception:  # told by the reading itself
                continue
            if abs(2 * width * size[0] - height * size[1]) > size[0]:  # over half a pixel on either side
                raise DataError(
                    f"{name} in {found.source} is {size[1]} x {size[0]} (width x height), its halves are not of the "
                    f"shape of size {width} x {height}, and cutting would part what belongs together; {ACCEPTED}"
                )
        options = replace(options, size=(height, 2 * width))
    both = gather(replace(found, labels=None, classes=()), options)
    height, width = both.spec.shape[1:]
    if width % 2 or (options.size is None and width < 2 * height):  # a size says what the halves are
        raise DataError(
            f"the pictures in {found.source} are {width} x {height} (width x height), which is not two side by side; "
            f"{ACCEPTED}"
        )
    everything = both.take(np.arange(len(both)))
    left, right = (np.ascontiguousarray(half) for half in np.split(everything, 2, axis=3))
    spec = replace(both.spec, shape=(both.spec.shape[0], height, width // 2), classes=())
    return replace(both, items=right, conditions=left, spec=replace(spec, condition=spec), labels=None)
