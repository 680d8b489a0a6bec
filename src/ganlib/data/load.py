"""One door for all data: a folder, a file, arrays, pictures, a data set object, or the embedded digits."""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ganlib.data import binaries, folders, packed, sharded
from ganlib.data.arrays import as_array, from_array
from ganlib.data.dataset import Data
from ganlib.data.digits import stacked
from ganlib.data.gather import Gathering, gather
from ganlib.data.store import Options
from ganlib.errors import DataError, GanlibError, MissingError, UsageError

EMBEDDED = ("digits", "stacked_digits")
STACKS = 20_000
"""Stacked digits: 20 of each of the 1,000 modes."""

_ACCEPTED = (
    "the path of a folder of pictures or shards, of a .tar, .zip, .npz, .npy, IDX or CIFAR .bin file, an array, "
    "a tensor, a list of arrays, pictures or their paths, a torch Dataset, a Hugging Face Dataset, 'digits' or "
    "'stacked_digits'"
)


def load(
    source: object,
    labels: object = None,
    *,
    size: tuple[int, int] | int | None = None,
    split: str = "train",
    cache: Path | str | None = None,
    memory_bytes: int | None = None,
) -> Data:
    """Read items, and their labels where the source has them or `labels` are given, one per item in sorted order.

    `size` is (height, width), or one number for a square; images are cut to that aspect ratio and resized.
    `split` chooses among the parts of a published data set ("train" or "test"). Items beyond `memory_bytes` (default:
    half of the free memory) go to a file in `cache` (default: where temporary files go), or stay in their .npy file.
    Raises :class:`MissingError` for a path that is not there, :class:`UsageError` for a source or option of another
    kind, and :class:`DataError` for content that cannot be used.
    """
    options = Options(size_of(size), split, None if cache is None else Path(cache), memory_bytes)
    if isinstance(source, Data):
        if labels is not None or size is not None:
            raise UsageError("this data is loaded already; give labels and size where it is loaded first")
        return source
    if isinstance(source, str) and source in EMBEDDED:
        return _digits(source, labels, options)
    if isinstance(source, str | Path):
        return _path(source, labels, options)
    if isinstance(source, Dataset) or (hasattr(source, "features") and hasattr(source, "column_names")):
        return _dataset(source, labels, options)
    if isinstance(source, list | tuple):
        return _items(source, labels, "the list", options, isinstance(next(iter(source), None), Tensor))
    if isinstance(source, Tensor | np.ndarray) or hasattr(source, "__array__"):
        return from_array(as_array(source), labels, "the array", options, isinstance(source, Tensor))
    raise UsageError(f"cannot read data from {type(source).__name__}; accepted are {_ACCEPTED}")


def size_of(size: tuple[int, int] | int | None) -> tuple[int, int] | None:
    """Height and width; raises :class:`UsageError` for what is neither one number of pixels nor two."""
    if size is None:
        return None
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or not all(isinstance(side, int) and 1 <= side <= 8192 for side in both):
        raise UsageError(f"size={size!r}; accepted is one number of pixels or (height, width), each from 1 to 8192")
    return both[0], both[1]


def _digits(source: str, labels: object, options: Options) -> Data:
    """The handwritten digits that come with the package, 1,797 of 8 x 8 pixels: see DIGITS.md; or stacks of them."""
    if options.split != "train":
        raise UsageError(f"{source} has no split {options.split!r}; hold some out with data.split(300, seed=0)")
    with resources.files("ganlib.data").joinpath("digits.npz").open("rb") as file, np.load(file) as stored:
        images, classes = stored["images"], stored["labels"]
    if source == "stacked_digits":
        return from_array(stacked(images, classes, STACKS, seed=0), labels, source, options)
    return from_array(images, classes if labels is None else labels, source, options)


def _path(source: str | Path, labels: object, options: Options) -> Data:
    if not str(source) or "\0" in str(source):
        raise UsageError(f"{str(source)!r} is not a path; accepted are {_ACCEPTED}")
    path = Path(source).expanduser()
    with readable(path):
        if path.is_dir():
            return _folder(path, labels, options)
        if path.is_file():
            return _file(path, labels, options)
        if path.exists():
            raise DataError(f"{path} is neither a file nor a folder; accepted are {_ACCEPTED}")
    raise MissingError(f"{path} does not exist{_nearest(path)}; accepted are {_ACCEPTED}")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` met while reading `path` into a :class:`DataError` that says what to do."""
    try:
        yield
    except GanlibError:
        raise
    except PermissionError as error:
        raise DataError(f"{path} may not be read; change its permissions or run as its owner") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the disk or the name") from error


def _nearest(path: Path) -> str:
    """Names like the missing one that do exist, as the middle of a sentence."""
    parent, wanted = path.parent, path.name
    while not parent.is_dir() and parent != parent.parent:
        parent, wanted = parent.parent, parent.name
    names = [*EMBEDDED] if len(path.parts) == 1 else []
    try:
        names += sorted(folders.printable(entry.name) for entry in parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    close = difflib.get_close_matches(wanted, names, 3, 0.5)
    where = "" if parent == Path() else f" in {parent}"
    return (
        f"; the nearest names{where} are {', '.join(close)}" if close else f"; nothing like {wanted!r} is there{where}"
    )


def _folder(path: Path, labels: object, options: Options) -> Data:
    if (data := of_container(path, labels, options)) is not None:
        return data
    unlisted: list[tuple[str, str]] = []
    pictures = folders.from_folder(path, list(folders.files_below(path, unlisted)), labels, options)
    pictures.unreadable.extend(unlisted)
    return gather(pictures, options)


def of_container(path: Path, labels: object, options: Options) -> Data | None:
    """The data of a folder in which few files hold all items: shards, IDX, CIFAR, .npz; None for one of pictures."""
    if sharded.is_prepared(path):
        return sharded.from_prepared(path, labels, options)
    shown = (entry.name for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    top = sorted(shown, key=folders.natural)
    if images := binaries.idx_images(top):
        return binaries.from_idx_folder(path, images, labels, options)
    if batches := binaries.cifar_batches(path, top):
        return binaries.from_cifar(path, binaries.cifar_of_split(path, batches, options.split), labels, options)
    archives = [name for name in top if name.endswith(".npz")]
    if archives and not any(map(folders.is_picture, folders.files_below(path, []))):
        return packed.from_npz(packed.npz_of_split(path, archives, options.split), labels, options)
    if tars := sharded.plain_tars(path):
        return sharded.from_tars(tars, folders.printable(str(path)), labels, options)
    return None


def _file(path: Path, labels: object, options: Options) -> Data:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return packed.from_npz(path, labels, options)
    if suffix == ".npy":
        return packed.from_npy(path, labels, options)
    if suffix == ".zip":
        return folders.from_zip(path, labels, options)
    if suffix == ".tar":
        return sharded.from_tars([path], folders.printable(str(path)), labels, options)
    if path.name.lower().endswith((".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise DataError(
            f"{path} is a compressed tar, which cannot be read from anywhere but its start; unpack it, and pass the "
            "folder of pictures or the plain .tar"
        )
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic[:3] == b"\0\0\x08" or suffix == ".gz" or "idx" in path.name:
        return binaries.from_idx(path, labels, options)
    if binaries.cifar_batches(path.parent, [path.name]):
        return binaries.from_cifar(path.parent, [path.name], labels, options)
    if suffix in folders.SUFFIXES:
        raise DataError(f"{path} is one picture; at least 2 are needed to learn from: pass the folder they are in")
    raise DataError(f"{path} is of a kind that is not read; accepted are {_ACCEPTED}")


def _items(items: Sequence[Any], labels: object, source: str, options: Options, torch_order: bool) -> Data:
    """Items one by one: all Pillow pictures, all paths of pictures, or all arrays of one shape."""
    if len(items) < 2:
        raise DataError(f"{source} has {len(items)} items; at least 2 are needed to learn from")
    if all(isinstance(item, Image.Image) for item in items):
        names = [f"picture {number}" for number in range(len(items))]
        # One thread: the same object may be in the list twice, and Pillow reads its file on first use.
        return gather(Gathering(source, names, items.__getitem__, labels, num_threads=1), options)
    if all(isinstance(item, str | Path) for item in items):
        paths = [Path(item) for item in items]
        return gather(Gathering(source, [folders.printable(str(p)) for p in paths], paths.__getitem__, labels), options)
    try:
        arrays = [as_array(item) for item in items]
        shapes = sorted({array.shape for array in arrays})
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{source} holds what is no array ({error}); accepted are {_ACCEPTED}") from error
    if len(shapes) > 1:
        raise DataError(f"the items of {source} have {len(shapes)} shapes, such as {shapes[:3]}; all must have one")
    return from_array(np.stack(arrays), labels, source, options, torch_order)


def _dataset(source: Any, labels: object, options: Options) -> Data:
    """A map-style torch Dataset of items or (item, label), or a Hugging Face Dataset with an image column."""
    name = f"the {type(source).__name__}"
    if isinstance(source, IterableDataset) or not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise UsageError(f"{name} has no length or cannot be indexed; pass list(it), or a map-style Dataset")
    if hasattr(source, "features") and hasattr(source, "column_names"):
        return _hugging_face(source, labels, name, options)
    rows = [source[number] for number in range(len(source))]
    if rows and all(isinstance(row, tuple | list) and len(row) == 2 for row in rows):
        labels = [as_array(row[1]).item() for row in rows] if labels is None else labels
        rows = [row[0] for row in rows]
    elif rows and all(isinstance(row, tuple | list) and len(row) == 1 for row in rows):
        rows = [row[0] for row in rows]  # what TensorDataset gives for one tensor
    return _items(rows, labels, name, options, bool(rows) and isinstance(rows[0], Tensor))


def _hugging_face(source: Any, labels: object, name: str, options: Options) -> Data:
    kinds = {column: type(source.features[column]).__name__ for column in source.column_names}
    usual = ("image", "img", "picture", "pixel_values")
    image = next((c for c, kind in kinds.items() if kind == "Image"), None) or next(
        (c for c in usual if c in kinds), None
    )
    if image is None:
        raise DataError(f"{name} has no image column among {', '.join(kinds)}; cast one to datasets.Image()")
    label = next((c for c, kind in kinds.items() if kind == "ClassLabel"), "label" if "label" in kinds else None)
    rows = [source[number] for number in range(len(source))]
    if labels is None and label is not None:
        numbers = [row[label] for row in rows]
        names = getattr(source.features[label], "names", None)
        labels = [names[number] for number in numbers] if names else numbers
    return _items([row[image] for row in rows], labels, name, options, False)
