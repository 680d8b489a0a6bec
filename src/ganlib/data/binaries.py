"""The published binary forms of small data sets: IDX (MNIST and its relatives) and CIFAR."""

import dataclasses
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ganlib.data.arrays import class_numbers, from_array
from ganlib.data.dataset import Data
from ganlib.data.folders import natural
from ganlib.data.store import Options, check_loadable
from ganlib.errors import DataError

_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_IDX_IMAGES = re.compile(r"images[-._]idx\d-ubyte(\.gz)?$")
_SPLIT_WORDS = {"train": ("train",), "test": ("t10k", "test")}
_CIFAR_PIXELS = 3 * 32 * 32


def idx_images(names: Sequence[str]) -> list[str]:
    """Those of the file names that are IDX files of images."""
    return [name for name in names if _IDX_IMAGES.search(name)]


def cifar_batches(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the file names that are CIFAR batches by extension and size."""
    found = [name for name in names if name.endswith(".bin")]
    return [name for name in found if _cifar_label_bytes((folder / name).stat().st_size, name)]


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, gzipped or not; raises :class:`DataError` where its length is not what it says."""
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else open(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES or not 1 <= magic[3] <= 4:
                raise DataError(f"{path} is not an IDX file: it begins with {magic.hex()}, not 0000, a type and a rank")
            sizes = file.read(4 * magic[3])
            if len(sizes) < 4 * magic[3]:
                raise DataError(f"{path} ends within its header; download it again")
            shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
            dtype = np.dtype(_IDX_TYPES[magic[2]])
            num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
            check_loadable(num_bytes, str(path))
            content = file.read(num_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again") from error
    if len(content) != num_bytes:
        raise DataError(
            f"{path} should hold {num_bytes} bytes for shape {shape}, but "
            f"{'is longer' if len(content) > num_bytes else f'ends after {len(content)}'}; download it again"
        )
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def from_idx_folder(folder: Path, names: Sequence[str], labels: object, options: Options) -> Data:
    """The IDX images of the split, with their labels."""
    words = _SPLIT_WORDS.get(options.split, (options.split,))
    chosen = [name for name in names if any(word in name.lower() for word in words)]
    if len(chosen) != 1:
        raise DataError(
            f"{folder} holds {len(chosen)} IDX image files for split={options.split!r}: {', '.join(sorted(names))}; "
            "pass the path of one of them"
        )
    return from_idx(folder / chosen[0], labels, options)


def from_idx(path: Path, labels: object, options: Options) -> Data:
    """The images in an IDX file; labels come from the file of that name beside it, where there is one."""
    images = read_idx(path)
    beside = re.sub(r"idx\d", "idx1", path.name.replace("images", "labels")).removesuffix(".gz")
    for name in (beside, beside + ".gz"):
        if labels is None and name != path.name and (path.parent / name).is_file():
            labels = read_idx(path.parent / name)
    return from_array(images, labels, str(path), options)


def from_cifar(folder: Path, names: Sequence[str], labels: object, options: Options) -> Data:
    """The images of CIFAR-10 or CIFAR-100 (fine classes) batches, with the class names where the folder has them."""
    names = sorted(names, key=natural)
    source = str(folder / names[0]) if len(names) == 1 else str(folder)
    kinds = {_cifar_label_bytes((folder / name).stat().st_size, name) for name in names}
    if len(kinds) != 1:
        raise DataError(f"{source} holds batches of CIFAR-10 and of CIFAR-100; put them in folders of their own")
    num_labels = kinds.pop()
    check_loadable(sum((folder / name).stat().st_size for name in names), source)
    records = np.concatenate([np.fromfile(folder / name, np.uint8) for name in names]).reshape(
        -1, num_labels + _CIFAR_PIXELS
    )
    images = records[:, num_labels:].reshape(-1, 3, 32, 32)
    if labels is not None:
        return from_array(images, labels, source, options)
    meta = folder / ("batches.meta.txt" if num_labels == 1 else "fine_label_names.txt")
    count = 10 if num_labels == 1 else 100
    lines = meta.read_text(errors="replace").split("\n") if meta.is_file() else map(str, range(count))
    classes = tuple(line.strip() for line in lines if line.strip())
    numbers, classes = class_numbers(records[:, num_labels - 1], len(records), classes)
    data = from_array(images, None, source, options)
    return dataclasses.replace(data, labels=numbers, spec=dataclasses.replace(data.spec, classes=classes))


def cifar_of_split(folder: Path, names: Sequence[str], split: str) -> list[str]:
    """The batches of the split; raises :class:`DataError` where there are none."""
    words = {"train": ("train", "data_batch"), "test": ("test",)}.get(split, (split,))
    chosen = [name for name in names if any(word in name.lower() for word in words)]
    if not chosen:
        raise DataError(f"{folder} has no CIFAR batch for split={split!r} among {', '.join(sorted(names))}")
    return chosen


def _cifar_label_bytes(num_bytes: int, name: str) -> int:
    """1 for a file of CIFAR-10 records, 2 for CIFAR-100, 0 for neither."""
    fits = [count for count in (1, 2) if num_bytes and num_bytes % (count + _CIFAR_PIXELS) == 0]
    if len(fits) == 2:  # nine million items, or a coincidence: go by the published names
        return 1 if "batch" in name else 2
    return fits[0] if fits else 0
