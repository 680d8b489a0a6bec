"""Pictures with numbers beside them: a table of attributes next to a folder, arrays, or a data frame."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ganlib.data import folders
from ganlib.data.dataset import Data
from ganlib.data.gather import Gathering, gather
from ganlib.data.load import load, readable, size_of
from ganlib.data.packed import attribute_arrays
from ganlib.data.store import Options
from ganlib.errors import DataError
from ganlib.spec import Attribute

ACCEPTED = (
    "accepted are a folder of pictures with a table (one .csv: a file name, then a number for each attribute, and a "
    "class under 'class' if there are any), a .npz with 'attributes' [items, attributes] and 'attribute_names', "
    "arrays with a table of columns, or pictures of several classes"
)
_CLASS_COLUMNS = ("class", "label", "classes", "labels")
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


def load_attributes(
    source: object, labels: object = None, *, size: tuple[int, int] | int | None = None, split: str = "train"
) -> Data:
    """Read pictures with attributes, classes, or both.

    `labels` are a class for each picture, as :func:`ganlib.data.load` takes them; numbers [items, attributes]; or
    columns by name (a data frame, a dictionary), of which one named ``class`` or ``label`` holds classes. The
    attributes of a folder stand in a table in it. Raises :class:`UsageError`, :class:`MissingError` and
    :class:`DataError`, which names the row and the column.
    """
    if isinstance(source, Data):
        return source if labels is None else load(source, labels)
    columns = _columns(labels)
    if columns is not None:
        classes = next((columns.pop(name) for name in list(columns) if name.lower() in _CLASS_COLUMNS), None)
        data = load(source, classes, size=size, split=split)
        return with_attributes(data, columns, "the labels given")
    path = Path(source).expanduser() if isinstance(source, str | Path) else None
    if labels is None and path is not None and path.is_dir() and (table := _table_in(path, split)) is not None:
        with readable(path):
            return _of_folder(path, table, Options(size_of(size), split))
    data = load(source, labels, size=size, split=split)
    if labels is None and path is not None and path.suffix.lower() == ".npz":
        return with_attributes(data, attribute_arrays(path, split), str(path))
    return data


def with_attributes(data: Data, columns: Mapping[str, Sequence[float] | np.ndarray], source: str) -> Data:
    """The same items with these attributes, one number per item in each column; none is fine where there are classes.

    Raises :class:`DataError` for columns of another length, for what is no number, and for a column that never changes.
    """
    if not columns:
        return data
    values = np.empty((len(data), len(columns)))
    for place, (name, column) in enumerate(columns.items()):
        try:
            numbers = np.asarray(column, np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"the attribute {name} of {source} is not of numbers ({error}); {ACCEPTED}") from error
        if numbers.shape != (len(data),):
            raise DataError(f"the attribute {name} of {source} has shape {numbers.shape} for {len(data):,} items")
        if not np.isfinite(numbers).all():
            row = int(np.argmin(np.isfinite(numbers)))
            raise DataError(
                f"the attribute {name} of {source} is {numbers[row]} in row {row}; fill it in or leave it out"
            )
        if numbers.min() == numbers.max():
            raise DataError(
                f"the attribute {name} of {source} is {numbers[0]:g} everywhere: nothing can be learned of it"
            )
        values[:, place] = numbers
    known = tuple(
        Attribute(name, float(low), float(high))
        for name, low, high in zip(columns, values.min(0), values.max(0), strict=True)
    )
    if twice := [name for name, count in Counter([*columns, *data.spec.classes]).items() if count > 1]:
        raise DataError(f"{source} has two attributes or classes named {twice[0]}; give each its own name")
    stored = values
    if data.index is not None:
        stored = np.zeros((len(data.items), len(columns)))
        stored[data.index] = values
    return replace(data, attributes=stored, spec=replace(data.spec, attributes=known))


def _columns(labels: object) -> dict[str, Any] | None:
    """Columns by name of a data frame, a dictionary, or numbers [items, attributes]; None for mere classes."""
    if isinstance(labels, Mapping):
        return {str(name): column for name, column in labels.items()}
    if hasattr(labels, "columns") and hasattr(labels, "__getitem__"):
        return {str(name): np.asarray(labels[name]) for name in labels.columns}  # type: ignore[index, attr-defined]
    if isinstance(labels, np.ndarray | Tensor) and labels.ndim == 2 and labels.shape[1] > 1:
        numbers = np.asarray(labels)
        return {f"attribute{place}": numbers[:, place] for place in range(numbers.shape[1])}
    return None


def _table_in(folder: Path, split: str) -> Path | None:
    """The one table in a folder, or in the folder of its split."""
    for place in (folder, folder / split):
        seen = sorted(place.iterdir()) if place.is_dir() else []
        found = [path for path in seen if path.suffix.lower() == ".csv" and not path.name.startswith(".")]
        if len(found) > 1:
            raise DataError(
                f"{place} holds {len(found)} tables ({', '.join(path.name for path in found[:5])}); leave the one in "
                "it that names the pictures"
            )
        if found:
            return found[0]
    return None


def _of_folder(folder: Path, table: Path, options: Options) -> Data:
    """The pictures that the table names; those without a row, and rows without a picture, are told as unreadable."""
    unlisted: list[tuple[str, str]] = []
    rows, classes, names = _read_table(table)
    below = [name for name in folders.files_below(folder, unlisted) if not name.lower().endswith(".csv")]
    found = folders.from_folder(folder, below, None, options)
    wanted = _by_name(found.names, rows, folder, table)
    known = {*wanted.values(), *below}  # what is there is not missing, be it of another split
    missing = [name for name in rows if name not in known]
    kept = [place for place in range(len(found.names)) if place in wanted]
    if not kept:
        raise DataError(
            f"{table} names {len(rows):,} pictures, the first {next(iter(rows), '-')}, and none is in {folder}, where "
            f"the first is {found.names[0]}; the first column holds names as they are below the folder"
        )
    problems = [
        (name, f"it has no row in {table.name}") for place, name in enumerate(found.names) if place not in wanted
    ]
    problems += [(name, f"it has a row in {table.name}, and is not there") for name in missing]
    labels = [classes[wanted[place]] for place in kept] if classes else _chosen(found.labels, kept)
    gathering = Gathering(
        found.source,
        [found.names[place] for place in kept],
        lambda number: found.content(kept[number]),
        labels,
        () if classes else found.classes,
        unlisted,
    )
    data = gather(gathering, options)
    data = replace(data, unreadable=tuple(sorted([*data.unreadable, *problems])))
    bad = {name for name, _ in data.unreadable}
    values = [rows[wanted[place]] for place in kept if found.names[place] not in bad]
    return with_attributes(data, dict(zip(names, zip(*values, strict=True), strict=True)) if names else {}, str(table))


def _chosen(labels: object, kept: Sequence[int]) -> list[object] | None:
    return [labels[place] for place in kept] if isinstance(labels, list) else None


def _by_name(pictures: Sequence[str], rows: Mapping[str, object], folder: Path, table: Path) -> dict[int, str]:
    """The row of each picture that has one: by its whole name, else by its file name where that is there once.

    A whole name begins at the folder, at that of the table, or with the name of the folder itself.
    """
    short = Counter(name.rpartition("/")[2] for name in pictures)
    above, found = f"{table.parent.relative_to(folder).as_posix()}/", {}
    for place, name in enumerate(pictures):
        last = name.rpartition("/")[2]
        own = [known for known in (name, name.removeprefix(above), f"{folder.name}/{name}") if known in rows]
        if own or (last in rows and short[last] == 1):
            found[place] = own[0] if own else last
    return found


def _read_table(path: Path) -> tuple[dict[str, list[float]], dict[str, str], list[str]]:
    """The attributes of each picture by its name, the class of each if there are any, and the attributes' names."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
        delimiter = max(",;\t", key=first.count)
        lines = list(csv.reader([first, *file], delimiter=delimiter))
    header = [name.strip() for name in lines[0]] if lines else []
    if len(header) < 2 or any(_is_number(name) for name in header[1:]):
        raise DataError(
            f"{path} begins with {', '.join(header[:4]) or 'nothing'}; its first row names the columns: a file name, "
            "then the attributes"
        )
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(f"{path} has two columns named {twice[0]!r}; give each its own name")
    own_class = next((place for place, name in enumerate(header) if place and name.lower() in _CLASS_COLUMNS), None)
    places = [place for place in range(1, len(header)) if place != own_class]
    rows: dict[str, list[float]] = {}
    classes: dict[str, str] = {}
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise DataError(f"row {number} of {path} has {len(cells)} cells, and the first row {len(header)}")
        name = cells[0].strip()
        if name in rows:
            raise DataError(f"row {number} of {path} names {name} again; give each picture one row")
        rows[name] = [_number(cells[place], number, header[place], path) for place in places]
        if own_class is not None:
            classes[name] = cells[own_class].strip()
            if not classes[name]:
                raise DataError(f"row {number} of {path} has no {header[own_class]}; name one, or leave the row out")
    return rows, classes, [header[place] for place in places]


def _number(cell: str, row: int, column: str, path: Path) -> float:
    word = cell.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    if not _is_number(word) or not math.isfinite(float(word)):
        raise DataError(
            f"row {row} of {path}: {column} is {cell.strip()[:40]!r}; accepted are numbers, true and false; names "
            "only in a column named class"
        )
    return float(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
