"""Any source item by item, for what is larger than memory."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ganlib.core import Spec
from ganlib.data import folders, sharded
from ganlib.data.dataset import Data
from ganlib.data.images import Content
from ganlib.data.load import load, of_container, readable
from ganlib.data.store import Options

Listed: TypeAlias = tuple[str, Path | int, int]
"""One item: its name, where to read it, its class (-1 without)."""


@dataclass(frozen=True)
class Source:
    """Items to read one after another; `spec` where it is known before, which it is of arrays."""

    name: str
    items: Iterator[Listed]
    read: Callable[[Any], Content | np.ndarray]  # of the place that `items` gives
    classes: tuple[str, ...]
    spec: Spec | None = None
    stored: str = ""  # the dtype in which arrays are stored
    mark: str = ""  # what tells arrays, whose items have no names, from others


@contextlib.contextmanager
def opened(source: object, options: Options, problems: list[tuple[str, str]]) -> Iterator[Source]:
    """The items of any source; pictures in files are not read yet."""
    path = Path(source).expanduser() if isinstance(source, str | Path) and source != "digits" else None
    if path is not None and path.suffix.lower() == ".zip" and path.is_file():
        with folders.opened_zip(path, None, options) as pictures:
            labels = pictures.labels if isinstance(pictures.labels, list) else itertools.repeat(-1)
            listed = zip(pictures.names, range(len(pictures.names)), labels, strict=False)
            yield Source(pictures.source, listed, pictures.content, pictures.classes)
        return
    tars, data = [], None
    if path is not None and path.suffix.lower() == ".tar" and path.is_file():
        tars = [path]
    elif path is not None and path.is_dir():
        with readable(path):
            tars = sharded.plain_tars(path)
            data = None if tars else of_container(path, None, options)
            if not tars and data is None:
                listed, classes = folders.one_by_one(path, options, problems)
                yield Source(folders.printable(str(path)), listed, Path, classes)
                return
    if tars:
        members, numbers, classes = sharded.scanned(tars, str(path))
        listed = ((members.name(row), row, -1 if numbers is None else int(numbers[row])) for row in range(len(members)))
        yield Source(str(path), listed, members.content, classes)
        return
    if data is None:
        data = load(source, size=options.size, split=options.split)
    yield _of_data(data)


def _of_data(data: Data) -> Source:
    labels = data.labels
    listed = ((f"item {row}", row, -1 if labels is None else int(labels[row])) for row in range(len(data)))
    stored, mark = data.items.dtype.name, data.fingerprint()["sha256"]
    return Source(
        data.source, listed, lambda row: data.take(np.array([row]))[0], data.spec.classes, data.spec, stored, mark
    )
