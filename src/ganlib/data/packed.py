"""Arrays in files of numpy: which of them are the images, and which the labels."""

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from ganlib.data.arrays import from_array
from ganlib.data.dataset import Data
from ganlib.data.folders import check_archive
from ganlib.data.gather import Gathering, gather
from ganlib.data.store import Options, check_loadable, memory_limit
from ganlib.errors import DataError

_IMAGES = ("images", "image", "x", "data", "imgs", "samples", "features", "arr_0")
_LABELS = ("labels", "label", "y", "targets", "target", "arr_1")
_BYTES = ("body", "bytes", "data", "jpeg", "jpegs", "png", "files")


def npz_of_split(folder: Path, names: Sequence[str], split: str) -> Path:
    """The one .npz in a folder, or the one with the split as a word of its name; else raises :class:`DataError`."""
    chosen = [name for name in names if re.search(rf"(^|[^a-z]){re.escape(split)}([^a-z]|$)", name.lower())]
    if len(names) == 1:
        return folder / names[0]
    if len(chosen) == 1:
        return folder / chosen[0]
    raise DataError(
        f"{folder} holds {len(names)} .npz files, {len(chosen)} of them named after split={split!r}: "
        f"{', '.join(sorted(names)[:5])}; pass the path of one of them"
    )


def from_npy(path: Path, labels: object, options: Options) -> Data:
    """The array in a .npy file, memory-mapped where it is large; raises :class:`DataError` for pickle."""
    large = path.stat().st_size > memory_limit(options.memory_bytes)
    try:
        array = np.load(path, mmap_mode="r" if large else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
        raise DataError(_refused(path, error)) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path} is an .npz archive; give it that extension")
    return from_array(array, labels, str(path), options)


def from_npz(path: Path, labels: object, options: Options) -> Data:
    """The images in an .npz file, with its labels if it has any; pictures may be packed as files end to end.

    Packed pictures are a byte array ``body`` (or bytes, jpeg, ...) and ``offsets`` where each begins and the last ends;
    a ``header``, if there is one, is what they all begin with. Raises :class:`DataError` where no array is of images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = check_archive(archive, str(path))
        check_loadable(sum(info.file_size for info in members), str(path))
        with np.load(path, allow_pickle=False) as stored:
            return _from_arrays(path, stored, labels, options)
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, SyntaxError, MemoryError) as error:
        raise DataError(_refused(path, error)) from error


def attribute_arrays(path: Path, split: str) -> dict[str, np.ndarray]:
    """The columns of the array ``attributes`` [items, attributes], by ``attribute_names``; nothing without one.

    For a file that :func:`from_npz` has read. Raises :class:`DataError` where names and columns are not as many.
    """
    with np.load(path, allow_pickle=False) as stored:
        names = {name.lower(): name for name in stored}
        chosen = _named(names, ("attributes",), split)
        if chosen is None:
            return {}
        values = stored[chosen]
        values = values[:, None] if values.ndim == 1 else values
        told = stored[names["attribute_names"]].tolist() if "attribute_names" in names else None
    if values.ndim != 2 or (told is not None and len(told) != values.shape[1]):
        raise DataError(
            f"{path}: attributes have shape {values.shape} and {len(told or [])} names; accepted is [items, "
            "attributes], and a name for each in attribute_names"
        )
    told = [f"attribute{place}" for place in range(values.shape[1])] if told is None else told
    return {str(name): values[:, place] for place, name in enumerate(told)}


def _refused(path: Path, error: Exception) -> str:
    # numpy takes whatever does not begin like a file of its own for pickle; pickle itself begins with byte 80.
    with open(path, "rb") as file:
        first = file.read(1)
    if "Object arrays" in str(error) or first == b"\x80":
        return (
            f"{path} holds Python objects (pickle), which can run any code when they are read, so they are not; "
            "save plain numbers instead: np.savez_compressed(path, images=np.stack(images), labels=labels)"
        )
    return f"{path} cannot be read ({error}); it may be damaged or cut off: make or download it again"


def _from_arrays(path: Path, stored: NpzFile, labels: object, options: Options) -> Data:
    names = {name.lower(): name for name in stored}
    packed = _packed(path, stored, names)
    if packed is not None:
        labels = _labels(stored, names, len(packed), options.split, ()) if labels is None else labels
        pictures = Gathering(str(path), [f"{path.name}[{i}]" for i in range(len(packed))], packed.__getitem__, labels)
        return gather(pictures, options)
    chosen = _named(names, _IMAGES, options.split)
    if chosen is None and len(names) == 1:
        chosen = next(iter(names.values()))
    if chosen is None:
        raise DataError(
            f"{path} holds the arrays {', '.join(sorted(stored)[:8])}{', ...' if len(names) > 8 else ''}, none of them "
            f"named as images are: {', '.join(_IMAGES)}, or with {options.split!r} in front or behind; rename one"
        )
    images = stored[chosen]
    if labels is None:
        labels = _labels(stored, names, len(images), options.split, (chosen,))
    return from_array(images, labels, f"{path}[{chosen}]", options)


def _named(names: Mapping[str, str], words: Sequence[str], split: str) -> str | None:
    """The first array named after the split and one of the words, else after one of the words alone."""
    for pattern in ("{split}_{word}", "{word}_{split}", "{split}{word}", "{word}{split}"):
        for word in words:
            if (found := pattern.format(split=split, word=word)) in names:
                return names[found]
    if split != "train":
        return None  # what is named after no split is all there is to train on
    return next((names[word] for word in words if word in names), None)


def _labels(
    stored: NpzFile, names: Mapping[str, str], num_items: int, split: str, taken: Sequence[str]
) -> np.ndarray | None:
    """The labels by name, else the only other array with one whole number or name per item."""
    chosen = _named({low: name for low, name in names.items() if name not in taken}, _LABELS, split)
    if chosen is not None:
        return stored[chosen]
    shapes = ((num_items,), (num_items, 1))
    others = [stored[name] for name in names.values() if name not in taken]
    fitting = [array for array in others if array.shape in shapes and array.dtype.kind in "iuUS"]
    return fitting[0] if len(fitting) == 1 else None


def _packed(path: Path, stored: NpzFile, names: Mapping[str, str]) -> list[bytes] | None:
    """The picture files that are packed end to end, if that is how they are stored."""
    body_name = next((names[word] for word in _BYTES if word in names), None)
    if body_name is None or "offsets" not in names:
        return None
    body, offsets = stored[body_name], stored[names["offsets"]]
    if body.ndim != 1 or body.dtype != np.uint8:
        return None
    ends = offsets.astype(np.int64) if offsets.ndim == 1 and offsets.dtype.kind in "iu" else np.empty(0, np.int64)
    if len(ends) < 2 or ends[0] < 0 or ends[-1] > len(body) or (np.diff(ends) < 0).any():
        raise DataError(
            f"{path}: offsets must be whole numbers that never fall, from 0 to the {len(body)} bytes of {body_name!r}, "
            "one more than there are pictures"
        )
    header = stored[names["header"]].tobytes() if "header" in names else b""
    content = body.tobytes()
    return [header + content[start:end] for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
