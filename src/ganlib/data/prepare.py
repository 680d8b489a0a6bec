"""Make shards: tars of pictures that are cut, resized and checked once, for data larger than memory."""

import concurrent.futures
import contextlib
import hashlib
import io
import itertools
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from ganlib.core import Spec
from ganlib.data import sharded
from ganlib.data.dataset import Data
from ganlib.data.gather import check_readable, picture_spec
from ganlib.data.images import Content, fits_png, read_header, read_pixels, reason
from ganlib.data.load import load, size_of
from ganlib.data.shards import num_threads
from ganlib.data.sources import Listed, Source, opened
from ganlib.data.store import Options
from ganlib.data.tars import joined, scan, write_tar
from ganlib.errors import BusyError, DataError, UsageError
from ganlib.files import digest, explained, read_json, write_bytes, write_json

SHARD_ITEMS = 10_000
LOCK = ".preparing.lock"
_AT_ONCE = 64  # items that wait to be written: encoded photographs take megabytes


@dataclass(frozen=True)
class Pictures:
    """What is known of some pictures, as far as it decides what all of them become."""

    size: tuple[int, int] | None = None  # height, width; None of no picture
    grey: bool = True
    deep: bool = True
    alpha: bool = False  # as a header says
    transparent: bool = False  # as a pixel is

    def joined(self, other: "Pictures") -> "Pictures":
        return Pictures(
            self.size or other.size,
            self.grey and other.grey,
            self.deep and other.deep,
            self.alpha or other.alpha,
            self.transparent or other.transparent,
        )

    def spec(self, classes: tuple[str, ...]) -> Spec:
        """What all become, by the rules of :func:`ganlib.data.gather.gather`."""
        assert self.size is not None
        channels = 4 if self.transparent else 1 if self.grey else 3
        deep = self.deep and not self.alpha
        return picture_spec(channels, self.size, np.dtype(np.uint16 if deep else np.uint8), classes)


def prepare(
    source: object,
    out: Path | str,
    *,
    size: tuple[int, int] | int | None = None,
    split: str = "train",
    shard_items: int = SHARD_ITEMS,
) -> Data:
    """Write what :func:`load` reads to a folder of shards, and open that.

    Folders, zips and tars of pictures are read picture by picture, so that they may be larger than memory. An item
    becomes a PNG of its pixels (.npy where no PNG holds them) and its class number, in the order of the source. Run
    again after an interruption, shards that are whole are kept. Raises :class:`UsageError` for a folder that holds
    other things, :class:`BusyError` for one that another process fills, :class:`WriteError` where the disk is full,
    and what :func:`load` raises.
    """
    for _ in write_shards(source, out, size=size, split=split, shard_items=shard_items):
        pass
    return load(out)


def write_shards(
    source: object, out: Path | str, *, size: tuple[int, int] | int | None, split: str, shard_items: int
) -> Iterator[int]:
    """What :func:`prepare` writes, shard by shard; gives how many items of the source are done."""
    if shard_items < 1:
        raise UsageError(f"shard_items={shard_items}; accepted is 1 or more")
    options, folder = Options(size_of(size), split), Path(out).expanduser()
    _check_free(folder)  # before anything is written there, and before the source is listed
    problems: list[tuple[str, str]] = []  # folders that cannot be listed
    records: list[dict[str, Any]] = []
    pictures = Pictures()
    with opened(source, options, problems) as given, _alone(folder):
        _check_free(folder)  # again: another may have filled it while the source was listed
        request = {"source": given.name, "mark": given.mark, "size": options.size, "split": split}
        write_json(folder / sharded.PROGRESS, request)
        first = 0
        while chunk := list(itertools.islice(given.items, shard_items)):
            asked = json.dumps([request, first, [(name, label, _stamp(place)) for name, place, label in chunk]])
            key = hashlib.sha256(asked.encode()).hexdigest()
            record = _kept(folder, len(records), key)
            if record is None:
                record = _written(folder, len(records), first, chunk, given, options, pictures)
                write_json(folder / _progress(len(records)), {**record, "key": key})
            pictures = pictures.joined(_known(record))
            records.append(record)
            first += len(chunk)
            yield first
        _finish(folder, given, records, pictures, problems)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second writer out. Raises :class:`BusyError`; the lock ends with the process, however that ends."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"{folder} is being prepared by another process; wait for it, or choose another --out"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but the beginning of shards."""
    if (folder / sharded.FACTS).exists():
        raise UsageError(f"{folder} holds shards already; choose another --out, or delete it first")
    with explained(folder):
        held = [path.name for path in folder.iterdir()] if folder.exists() else []
        foreign = [name for name in held if name != LOCK and not name.startswith(".tmp-")]
        if foreign and sharded.PROGRESS not in held:
            raise UsageError(f"{folder} is not empty and holds no shards; choose another --out")


def _progress(number: int) -> str:
    """The name of what is known of a shard until all are made."""
    return f"shard-{number:06d}.json"


def _stamp(place: Path | int) -> tuple[int, int] | None:
    """What changes when a picture is replaced under its name: bytes and time; None of what is no file of its own."""
    if not isinstance(place, Path):
        return None
    try:
        found = place.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _kept(folder: Path, number: int, key: str) -> dict[str, Any] | None:
    """What is known of a shard that an earlier call made of the same items; None where it has to be made."""
    path = folder / _progress(number)
    if not path.is_file():
        return None
    record = read_json(path)
    shard = folder / record["name"]
    whole = shard.is_file() and shard.stat().st_size == record["bytes"]
    # What could not be read may be readable now: a disk of the network was away, or a file was mended.
    return record if whole and record["key"] == key and not record["unreadable"] else None


def _known(record: dict[str, Any]) -> Pictures:
    size = record["pictures"]["size"]
    return Pictures(**{**record["pictures"], "size": None if size is None else tuple(size)})


def _written(
    folder: Path, number: int, first: int, chunk: Sequence[Listed], source: Source, options: Options, before: Pictures
) -> dict[str, Any]:
    """Write one shard; returns what is to be known of it. Raises :class:`DataError` for pictures of several sizes."""
    unreadable: list[tuple[str, str]] = []
    pictures = Pictures()

    def members() -> Iterator[tuple[str, bytes]]:
        nonlocal pictures
        for row, (name, label, made) in enumerate(_encoded(chunk, source, options)):
            if isinstance(made, str):
                unreadable.append((name, made))
                continue
            suffix, content, own = made
            usual = before.size or pictures.size or own.size
            if usual is not None and own.size != usual:
                raise DataError(
                    f"{name} in {source.name} has {_said(own.size)} pixels, those before it {_said(usual)}; "
                    "pass size=64 (--size 64) to cut and resize all to one size"
                )
            pictures = pictures.joined(own)
            if label >= 0:
                yield f"{first + row:09d}.cls", str(label).encode()
            yield f"{first + row:09d}{suffix}", content

    path = folder / f"shard-{number:06d}.tar"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on odd metadata, which is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        write_tar(path, members())
    return {
        "name": path.name,
        "items": len(chunk) - len(unreadable),
        "bytes": path.stat().st_size,
        "sha256": digest(path),
        "pictures": asdict(pictures),
        "unreadable": unreadable,
    }


def _said(size: tuple[int, int] | None) -> str:
    return "no" if size is None else f"{size[1]} x {size[0]}"


def _encoded(
    chunk: Sequence[Listed], source: Source, options: Options
) -> Iterator[tuple[str, int, tuple[str, bytes, Pictures] | str]]:
    """Name, class and file of each item in turn, made by threads; the reason instead of a file that cannot be read."""

    def encode(place: Path | int) -> tuple[str, bytes, Pictures] | str:
        if source.spec is not None:
            item = source.read(place)
            assert isinstance(item, np.ndarray)
            return (*_file_of(item), Pictures())
        try:
            content = source.read(place)
            assert not isinstance(content, np.ndarray)
            return _picture(content, options.size)
        except Exception as error:  # damaged files make decoders raise nearly anything
            return reason(error)

    with concurrent.futures.ThreadPoolExecutor(num_threads()) as pool:
        for start in range(0, len(chunk), _AT_ONCE):
            part = chunk[start : start + _AT_ONCE]
            for (name, _, label), made in zip(part, pool.map(encode, [place for _, place, _ in part]), strict=True):
                yield name, label, made


def _picture(content: Content, size: tuple[int, int] | None) -> tuple[str, bytes, Pictures]:
    """A PNG of a picture, upright and resized, in as many channels and bits as it has itself."""
    header = read_header(content)
    channels = 4 if header.alpha else 1 if header.grey else 3
    pixels = read_pixels(content, channels, header.deep and channels == 1, size)
    transparent = channels == 4 and bool(pixels[3].min() < 255)
    if channels == 4 and not transparent:
        pixels = pixels[: 1 if header.grey else 3]
    known = Pictures(pixels.shape[1:], header.grey, header.deep, header.alpha, transparent)
    return (*_file_of(pixels), known)


def _file_of(item: np.ndarray) -> tuple[str, bytes]:
    """Suffix and content of the file that holds an item as it is: PNG for pictures of 8 or 16 bits, else .npy."""
    buffer = io.BytesIO()
    if fits_png(item.shape, item.dtype):
        pixels = item[0] if len(item) == 1 else np.moveaxis(item, 0, -1)
        # Level 1: twice as fast to write as the usual 6, as fast to read, a few hundredths larger.
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
        return ".png", buffer.getvalue()
    np.save(buffer, item)
    return ".npy", buffer.getvalue()


def _finish(
    folder: Path, source: Source, records: Sequence[dict[str, Any]], pictures: Pictures, listing: list[tuple[str, str]]
) -> None:
    """Write the index and the facts, by which the folder becomes readable, and remove what is not needed any more."""
    unreadable = sorted([*listing, *((name, why) for record in records for name, why in record["unreadable"])])
    num_items = sum(record["items"] for record in records)
    check_readable(source.name, unreadable, num_items)
    spec = source.spec or pictures.spec(source.classes)
    paths = [folder / record["name"] for record in records]
    names = {str(number): number for number in range(len(source.classes))}
    tables = [scan(path, names) for path in paths]
    places = joined(paths, tables).places
    labels = np.concatenate([table[:, 2] for table in tables]).clip(0).astype(np.uint32)
    buffer = io.BytesIO()
    np.save(buffer, np.column_stack([places, labels]))
    write_bytes(folder / sharded.INDEX, buffer.getvalue())
    write_json(
        folder / sharded.FACTS,
        {
            "format": sharded.FORMAT,
            "source": source.name,
            "items": num_items,
            "spec": asdict(spec),
            "stored": source.stored or spec.dtype,
            "label_counts": np.bincount(labels, minlength=len(spec.classes)).tolist() if spec.classes else None,
            "unreadable": unreadable,
            "index_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "shards": [{name: record[name] for name in ("name", "items", "bytes", "sha256")} for record in records],
        },
    )
    kept = {path.name for path in paths}
    for path in folder.iterdir():
        if path.name == sharded.PROGRESS or (path.name.startswith(("shard-", ".tmp-")) and path.name not in kept):
            path.unlink()
    # While it is held, and not before the facts are there: whoever waits on this file or makes a new one is refused.
    with contextlib.suppress(OSError):  # Windows removes no open file
        (folder / LOCK).unlink()
