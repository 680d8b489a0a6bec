"""Tar files in the form of WebDataset: the members of one item stand together and share their name up to a dot."""

import array
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

import numpy as np
from jaxtyping import Int64, UInt32

from ganlib.data.images import SUFFIXES
from ganlib.errors import DamagedError, DataError, MissingError
from ganlib.files import replacing

BLOCK_BYTES = 512
"""Everything in a tar begins at a multiple of this."""

LABELS = (".cls", ".json")


@final
@dataclass(frozen=True, eq=False)
class Members:
    """Where the items of some tars lie: 8 bytes for each, so that ten million of them take 80 MB."""

    paths: tuple[Path, ...]
    starts: Int64[np.ndarray, " tars_and_1"]  # the number of the first item of each tar, and of all
    places: UInt32[np.ndarray, "items 2"]  # the block where the content begins, and its bytes

    def __len__(self) -> int:
        return len(self.places)

    def path(self, row: int) -> Path:
        return self.paths[int(np.searchsorted(self.starts, row, "right")) - 1]

    def content(self, row: int) -> bytes:
        """The file of one item; raises :class:`MissingError` or :class:`DamagedError` where it is not there whole."""
        block, num_bytes = (int(number) for number in self.places[row])
        path = self.path(row)
        try:
            # Not mapped: a mapping counts as memory of this process, and a disk that fails would kill it.
            with open(path, "rb", buffering=0) as file:
                file.seek(block * BLOCK_BYTES)
                content = file.read(num_bytes)
        except FileNotFoundError as error:
            raise MissingError(f"{path} is no longer there; restore it and run the same command again") from error
        except OSError as error:
            raise DamagedError(f"{path} cannot be read: {error.strerror or error}; check the disk") from error
        if len(content) != num_bytes:
            raise DamagedError(f"{path} ends within {self.name(row)}: it is cut off; restore it or make it again")
        return content

    def name(self, row: int) -> str:
        """The name of an item as messages give it: its member and its tar."""
        path = self.path(row)
        try:
            with open(path, "rb") as file:
                file.seek((int(self.places[row, 0]) - 1) * BLOCK_BYTES)
                return f"{tarfile.TarInfo.frombuf(file.read(BLOCK_BYTES), 'utf-8', 'replace').name} in {path}"
        except (OSError, tarfile.HeaderError):
            return f"item {row} in {path}"


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar of these names and contents: whole or not at all, and the same bytes for the same members.

    Raises :class:`WriteError` with the cause and the remedy.
    """
    with replacing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def scan(path: Path, labels: dict[str, int]) -> Int64[np.ndarray, "items 3"]:
    """The block and bytes of each item of a tar, and its label as a number into `labels`, which grows; -1 for none.

    An item is a picture (or .npy); its label stands in a member .cls, or .json with a field "label". Other members
    are passed over. Raises :class:`DamagedError` for a tar that is cut off or no tar, and :class:`DataError` for an
    item of two pictures or a label that cannot be read.
    """
    rows, key, item, text = array.array("q"), None, None, None

    def end_item() -> None:
        """One label an item, of those beside its picture. One beside none still tells that there are labels."""
        label = -1 if text is None else labels.setdefault(text, len(labels))
        rows.extend((*item, label) if item is not None else ())

    for member, content in _members(path):
        folder, _, base = member.name.rpartition("/")
        own = f"{folder}/{base.partition('.')[0]}"
        if own != key:
            end_item()
            key, item, text = own, None, None
        suffix = PurePosixPath(base).suffix.lower()
        if suffix in SUFFIXES or suffix == ".npy":
            if item is not None:
                raise DataError(
                    f"{path} has two pictures for the item {own.strip('/')!r}, the second {member.name!r}; "
                    "one each can be learned from: leave the others out of the tar"
                )
            item = (member.offset_data // BLOCK_BYTES, member.size)
        elif suffix in LABELS and (found := _label(suffix, content(), path, member.name)) is not None:
            text = found if suffix == ".cls" or text is None else text  # of both, .cls is the plainer word
    end_item()
    return np.array(rows, np.int64).reshape(-1, 3)


def joined(paths: Sequence[Path], tables: Sequence[Int64[np.ndarray, "_ 3"]]) -> Members:
    """The items of several tars as one row, from what :func:`scan` says of each."""
    starts = np.cumsum([0, *(len(table) for table in tables)], dtype=np.int64)
    places = np.empty((int(starts[-1]), 2), np.uint32)
    for path, start, table in zip(paths, starts[:-1], tables, strict=True):
        if table[:, :2].max(initial=0) >= 2**32:
            raise DataError(f"{path} is larger than 2 TB, or an item in it than 4 GB; make smaller ones")
        places[start : start + len(table)] = table[:, :2]
    return Members(tuple(paths), starts, places)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """The ordinary files in a tar that are not hidden, with what reads their content."""
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps all, a kilobyte each
                if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
                    yield member, lambda member=member: _content(file, member)
            # tarfile takes a damaged header within the file for its end
            file.seek(tar.offset)
            if (end := file.read(BLOCK_BYTES)) != bytes(BLOCK_BYTES):
                found = "no header of a member" if end else "the end of the file"
                raise DamagedError(
                    f"{path} is damaged or cut off: {found} at byte {tar.offset:,}; restore it or make it again"
                )
    except (tarfile.TarError, EOFError) as error:
        raise DamagedError(f"{path} is damaged, cut off or no tar ({error}); restore it or make it again") from error


def _content(file: io.BufferedReader, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(member.size)


def _label(suffix: str, content: bytes, path: Path, name: str) -> str | None:
    """The label that a member gives; None for a .json without one."""
    try:
        text = content.decode().strip()
        if suffix == ".cls":
            value: Any = text
        else:
            fields = json.loads(text)
            value = fields.get("label") if isinstance(fields, Mapping) else None
            if value is None:
                return None
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
    except ValueError:
        value = content[:20]
    raise DataError(f"{name} in {path} is no label: {value!r}; accepted is one number or name, as text")
