"""Two sets of pictures without partners: the two sides of an unpaired translation, as classes."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ganlib.data import folders
from ganlib.data.dataset import Data
from ganlib.data.gather import Gathering, gather
from ganlib.data.load import load, readable, size_of
from ganlib.data.store import Options
from ganlib.errors import DataError, UsageError

ACCEPTED = (
    "accepted are a folder with trainA/ and trainB/ (and testA/, testB/), a folder with two folders of pictures, "
    "two arrays or data, or data of two classes"
)
_SIDE = re.compile(r"(train|test)[ _-]?([AB])", re.IGNORECASE)


def load_domains(
    source: object, labels: object = None, *, size: tuple[int, int] | int | None = None, split: str = "train"
) -> Data:
    """Read two sets of pictures as data of two classes; A, the first, is class 0.

    All have one size (`size` cuts and resizes them) and as many channels: a set of grey pictures becomes one of colour
    beside one of colour. Raises :class:`UsageError` and :class:`DataError`, :class:`MissingError` for a missing path.
    """
    if isinstance(source, tuple | list) and len(source) == 2 and labels is None:
        first, second = (load(side, size=size, split=split) for side in source)
        return _joined(first, second)
    path = Path(source).expanduser() if isinstance(source, str | Path) else None
    if path is not None and path.is_dir() and (sides := _sides(path)):
        if split not in sides:
            raise DataError(f"{path} has no {split}A/ and {split}B/; there are {', '.join(sorted(sides))}")
        with readable(path):
            return _of_folders(path, sides[split], Options(size_of(size), split))
    data = load(source, labels, size=size, split=split)
    if len(data.spec.classes) != 2 or data.labels is None:
        raise DataError(f"{data.source} has {len(data.spec.classes)} classes, not two sets of pictures; {ACCEPTED}")
    return data


def _sides(folder: Path) -> dict[str, tuple[str, str]]:
    """The folders named trainA, trainB, testA, testB, as pairs by split."""
    found: dict[tuple[str, str], str] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and (match := _SIDE.fullmatch(entry.name)):
            found[match[1].lower(), match[2].upper()] = entry.name
    return {
        split: (found[split, "A"], found[split, "B"])
        for split in ("train", "test")
        if {(split, "A"), (split, "B")} <= found.keys()
    }


def _of_folders(folder: Path, sides: tuple[str, str], options: Options) -> Data:
    names: list[str] = []
    labels: list[int] = []
    for label, side in enumerate(sides):
        own = [f"{side}/{name}" for name in folders.files_below(folder / side, []) if folders.is_picture(name)]
        if not own:
            raise DataError(f"{folder / side} has no pictures; both sets need some")
        names, labels = names + own, labels + [label] * len(own)
    shown = [folders.printable(name) for name in names]
    return gather(Gathering(folders.printable(str(folder)), shown, lambda i: folder / names[i], labels, sides), options)


def _joined(first: Data, second: Data) -> Data:
    if first.spec.kind != "image" or second.spec.kind != "image":
        raise DataError(f"the two sets are {first.spec.kind}s and {second.spec.kind}s; {ACCEPTED}")
    if first.spec.shape[1:] != second.spec.shape[1:]:
        sides = " and ".join("x".join(map(str, data.spec.shape[1:])) for data in (first, second))
        raise DataError(f"the two sets are of {sides} pixels (height x width); pass size=64 (--size 64)")
    if first.spec.dtype != second.spec.dtype:
        raise DataError(f"the two sets are of {first.spec.dtype} and {second.spec.dtype}; give both in one")
    count = max(first.spec.shape[0], second.spec.shape[0])
    parts = [_with_channels(data.take(np.arange(len(data))), count) for data in (first, second)]
    wider = first.spec if first.spec.shape[0] == count else second.spec
    labels = np.repeat(np.arange(2, dtype=np.uint16), [len(first), len(second)])
    spec = replace(wider, classes=("A", "B"))
    return Data(np.concatenate(parts), labels, spec, f"{first.source} and {second.source}")


def _with_channels(items: np.ndarray, count: int) -> np.ndarray:
    """Grey pictures with as many channels as the others have."""
    if items.shape[1] == count:
        return items
    if items.shape[1] != 1 or count not in (3, 4):
        raise UsageError(f"the two sets have {items.shape[1]} and {count} channels; give both with as many")
    colour = np.repeat(items, 3, axis=1)
    if count == 3:
        return colour
    opaque = np.full_like(items, np.iinfo(items.dtype).max if items.dtype.kind == "u" else 1)
    return np.concatenate([colour, opaque], 1)
