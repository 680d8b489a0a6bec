"""Open folders of tars: those that `prepare` made, and those in the form of WebDataset that others made."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from ganlib.core import Spec
from ganlib.data.arrays import class_numbers
from ganlib.data.dataset import Data
from ganlib.data.folders import files_below, is_picture
from ganlib.data.gather import picture_spec
from ganlib.data.images import Header, fits_png, read_header, reason
from ganlib.data.shards import Shards
from ganlib.data.store import Options
from ganlib.data.tars import Members, joined, scan
from ganlib.errors import DamagedError, DataError, MissingError, UsageError
from ganlib.files import digest, read_json

FACTS, INDEX, PROGRESS = "shards.json", "index.npy", "preparing.json"
FORMAT = 1
_LOOKED_AT = (
    2000  # pictures of tars that others made whose headers are read at opening; each is checked when it is read
)


def is_prepared(folder: Path) -> bool:
    """Whether `prepare` made this folder, or began to."""
    return (folder / FACTS).is_file() or (folder / PROGRESS).is_file()


def plain_tars(folder: Path) -> list[Path]:
    """The tars just under a folder, by name, where it holds no pictures beside them and is not prepared."""
    tars = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not tars or is_prepared(folder) or any(map(is_picture, files_below(folder, []))):
        return []
    return tars


def from_prepared(folder: Path, labels: object, options: Options) -> Data:
    """Shards that `prepare` made. The sizes of the tars are checked, and the digest of their index.

    Raises :class:`DataError` where preparing was not finished, :class:`MissingError` and :class:`DamagedError` for
    shards that are not as they were.
    """
    _check_split(str(folder), options.split)
    if not (folder / FACTS).is_file():
        raise DataError(f"{folder} is not prepared to its end; run the same `ganlib prepare` command again to go on")
    facts = read_json(folder / FACTS)
    try:
        if facts["format"] != FORMAT:
            raise DataError(
                f"{folder / FACTS} has format {facts['format']!r}, but this version reads {FORMAT}; update ganlib"
            )
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts["spec"].items()
        }
        spec = Spec(**given)
        members, numbers = _indexed(folder, facts)
        dtype, digests = np.dtype(facts["stored"]), tuple(str(shard["sha256"]) for shard in facts["shards"])
        unreadable = tuple((str(name), str(why)) for name, why in facts["unreadable"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{folder / FACTS} is not as it was written ({error!r}); restore it, or prepare the shards again"
        ) from error
    size = options.size if options.size != spec.shape[1:] else None
    if size is not None:
        if not fits_png(spec.shape, dtype):
            raise UsageError(f"{folder} holds arrays, which are not resized when they are read; leave size out")
        spec = replace(spec, shape=(spec.shape[0], *size))
    if labels is not None:
        numbers, classes = class_numbers(labels, len(members), ())
        spec = replace(spec, classes=classes)
    store = Shards(members, (len(members), *spec.shape), dtype, size, digests)
    return Data(store, numbers if spec.classes else None, spec, str(folder), unreadable)


def changed(folder: Path) -> list[Path]:
    """Those tars of shards that `prepare` made whose content is not what it wrote: all of it is read.

    Raises what :func:`from_prepared` raises where opening shows the damage already.
    """
    store = from_prepared(folder, None, Options()).items
    assert isinstance(store, Shards)
    written = zip(store.members.paths, store.digests, strict=True)
    return [path for path, sha256 in written if digest(path) != sha256]


def _indexed(folder: Path, facts: dict[str, Any]) -> tuple[Members, Integer[np.ndarray, " items"]]:
    """Where the items lie and their class numbers, by the index; no tar is read."""
    for shard in facts["shards"]:
        path = folder / shard["name"]
        if not path.is_file():
            raise MissingError(f"{path} is not there; restore it, or prepare the shards again in another folder")
        if (num_bytes := path.stat().st_size) != shard["bytes"]:
            raise DamagedError(
                f"{path} has {num_bytes:,} bytes and was written with {shard['bytes']:,}: it is cut off or changed; "
                "restore it, or prepare the shards again in another folder"
            )
    index = folder / INDEX
    if not index.is_file() or digest(index) != facts["index_sha256"]:
        raise DamagedError(f"{index} is not as it was written; restore it, or prepare the shards again")
    table = np.load(index, allow_pickle=False)
    starts = np.cumsum([0, *(shard["items"] for shard in facts["shards"])], dtype=np.int64)
    paths = tuple(folder / shard["name"] for shard in facts["shards"])
    small = np.min_scalar_type(-len(facts["spec"]["classes"]))  # signed: torch reads it
    return Members(paths, starts, np.ascontiguousarray(table[:, :2])), table[:, 2].astype(small)


def from_tars(paths: Sequence[Path], source: str, labels: object, options: Options) -> Data:
    """Tars in the form of WebDataset: an item is a picture, its label a .cls or a field "label" in a .json.

    All headers of the tars are read at opening, and the pictures of some items; each is checked when it is read.
    """
    _check_split(source, options.split)
    members, numbers, classes = scanned(paths, source)
    channels, size, dtype = _settled(members, source, options.size)
    if labels is not None:
        numbers, classes = class_numbers(labels, len(members), ())
    store = Shards(members, (len(members), channels, *size), dtype, options.size)
    return Data(store, numbers, picture_spec(channels, size, dtype, classes), source)


def scanned(
    paths: Sequence[Path], source: str
) -> tuple[Members, Integer[np.ndarray, " items"] | None, tuple[str, ...]]:
    """The items of tars, their class numbers and the classes, by all headers.

    Raises :class:`DataError` where some items have a label and others have none.
    """
    codes: dict[str, int] = {}
    tables = [scan(path, codes) for path in paths]
    members = joined(paths, tables)
    labels = np.concatenate([table[:, 2] for table in tables])
    if not codes:
        return members, None, ()
    if (missing := np.flatnonzero(labels < 0)).size:
        raise DataError(
            f"{len(missing):,} of {len(members):,} items in {source} have no label (.cls or .json), the first "
            f"{members.name(int(missing[0]))}; give each item one, or none"
        )
    numeric = all(text.isdecimal() for text in codes)
    numbers, classes = class_numbers([int(text) for text in codes] if numeric else list(codes), len(codes), ())
    return members, numbers.astype(np.min_scalar_type(-len(classes)))[labels], classes


def _settled(members: Members, source: str, size: tuple[int, int] | None) -> tuple[int, tuple[int, int], np.dtype]:
    """Channels, size and dtype of pictures, by the headers of some from everywhere."""
    if len(members) < 2:
        raise DataError(
            f"{source} has {len(members)} pictures in its tars; at least 2 are needed to learn from: members .png, "
            ".jpg or .webp, and labels as .cls of the same name"
        )
    rows = np.linspace(0, len(members) - 1, min(len(members), _LOOKED_AT)).astype(np.int64).tolist()
    headers = [_header(members, row) for row in rows]
    sizes = sorted({header.size for header in headers})
    if size is None and len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for height, width in sizes[:5])
        raise DataError(
            f"the pictures in {source} have several sizes, width x height: {listed}{', ...' * (len(sizes) > 5)}; "
            "pass size=64 (--size 64) to cut and resize them to one"
        )
    channels = 4 if any(header.alpha for header in headers) else 1 if all(header.grey for header in headers) else 3
    deep = channels == 1 and all(header.deep for header in headers)
    return channels, size or sizes[0], np.dtype(np.uint16 if deep else np.uint8)


def _header(members: Members, row: int) -> Header:
    content = members.content(row)
    try:
        return read_header(content)
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise DataError(
            f"{members.name(row)} cannot be read: {reason(error)}; `ganlib prepare` makes shards without such pictures"
        ) from error


def _check_split(source: str, split: str) -> None:
    if split != "train":
        raise UsageError(f"{source} holds shards, which have no split {split!r}; leave it out")
