"""Arrays in memory or memory-mapped: which axis is what, and what range the numbers have."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64, Shaped
from PIL import Image
from torch import Tensor

from ganlib.core import Spec
from ganlib.data.dataset import Data
from ganlib.data.images import fit
from ganlib.data.store import Options, room
from ganlib.errors import DataError

_CHUNK_BYTES = 2**24

Range: TypeAlias = tuple[type, float, float]
"""The dtype in which items are stored, and the offset and scale of their numbers."""


def from_array(array: np.ndarray, labels: object, source: str, options: Options, torch_order: bool = False) -> Data:
    """Items from an array: [n, columns] are vectors; [n, h, w], [n, h, w, c] and [n, c, h, w] are images.

    The channel axis is the one of size 1 to 4; where both or neither are, the smaller one; where they are equal the
    last, or the first with `torch_order`. Raises :class:`DataError` for other shapes, dtypes and ranges.
    """
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "buif":
        raise DataError(
            f"{source} has shape {array.shape} and dtype {array.dtype}; accepted are numbers of shape "
            "[n, height, width], [n, height, width, channels], [n, channels, height, width], or vectors [n, columns]"
        )
    if len(array) < 2 or 0 in array.shape:
        raise DataError(
            f"{source} has shape {array.shape}: {len(array)} items; at least 2 that are not empty are needed"
        )
    numbers, classes = (None, ()) if labels is None else class_numbers(labels, len(array), ())
    if array.ndim == 2:
        return _vectors(array, numbers, classes, source, options)
    return _images(array, numbers, classes, source, options, torch_order)


def class_numbers(
    labels: object, num_items: int, classes: tuple[str, ...]
) -> tuple[Int64[np.ndarray, " items"], tuple[str, ...]]:
    """Class numbers from 0 and the names of the classes; `labels` are numbers into `classes` where that is given.

    Without, strings and numbers are sorted and number the classes themselves. Raises :class:`DataError` for labels that
    are not one per item, or are negative, not whole, or neither numbers nor strings.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"labels have shape {values.shape}; accepted is one number or name per item, [{num_items}]")
    if len(values) != num_items:
        raise DataError(f"{len(values)} labels for {num_items} items; there must be one per item, in the same order")
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)))
        if len(bad):
            raise DataError(f"label {bad[0]} is {values[bad[0]]} ({len(bad)} such); labels are whole numbers or names")
        values = values.astype(np.int64)
    if values.dtype.kind not in "biuUS":
        raise DataError(f"labels of dtype {values.dtype}; accepted are whole numbers or names, none of them missing")
    if values.dtype.kind == "i" and values.min(initial=0) < 0:
        first = int(np.argmax(values < 0))
        raise DataError(f"label {first} is {values[first]}; labels are numbers from 0 up, or names")
    if classes:
        if values.max(initial=0) >= len(classes):
            raise DataError(f"label {values.max()}, but there are only {len(classes)} class names")
        return values.astype(np.int64), classes
    found, numbers = np.unique(values.astype(np.int64) if values.dtype.kind == "b" else values, return_inverse=True)
    names = (value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in found.tolist())
    return numbers.astype(np.int64).reshape(-1), tuple(names)


def _chunks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of an array with the number of their first item: a memory-mapped one does not fit in memory whole."""
    step = max(_CHUNK_BYTES // max(array[0].nbytes, 1), 1)
    for start in range(0, len(array), step):
        yield start, np.asarray(array[start : start + step])


def _check_finite(array: np.ndarray, source: str) -> None:
    if array.dtype.kind != "f":
        return
    num_bad, first = 0, -1
    for start, chunk in _chunks(array):
        bad = np.flatnonzero(~np.isfinite(chunk).reshape(len(chunk), -1).all(1))
        if len(bad) and not num_bad:
            first = start + int(bad[0])
        num_bad += len(bad)
    if num_bad:
        raise DataError(
            f"{num_bad} of {len(array)} items in {source} hold NaN or infinity, the first is item {first}; "
            "remove these items or fill in their values"
        )


def _vectors(
    array: np.ndarray, labels: np.ndarray | None, classes: tuple[str, ...], source: str, options: Options
) -> Data:
    _check_finite(array, source)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = array.mean(0, dtype=np.float64)
        deviation = array.std(0, dtype=np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        column = int(np.argmin(np.isfinite(mean) & np.isfinite(deviation)))
        raise DataError(f"column {column} of {source} has numbers too large to average; divide it by a constant first")
    # A constant column has no deviation to divide by. Rounding in the mean leaves it one near 0, so look at its ends.
    # With scale 1 it is 0 for the networks, and what they make of it stays near its value.
    constant = array.min(0) == array.max(0)
    scale = np.where(constant | (deviation == 0), 1.0, deviation)
    spec = Spec("vector", array.shape[1:], classes, array.dtype.name, "C", tuple(mean.tolist()), tuple(scale.tolist()))
    # 32 bits hold neither prices in the millions with cents nor seconds since 1970: those stay as they are.
    exact = array.dtype in (np.float32, np.float16, np.uint8, np.int8, np.uint16, np.int16)
    return Data(_stored(array, np.dtype(np.float32 if exact else np.float64), options), labels, spec, source)


def _images(
    array: np.ndarray,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    source: str,
    options: Options,
    torch_order: bool,
) -> Data:
    _check_finite(array, source)
    layout = "HW" if array.ndim == 3 else _layout(array.shape, torch_order)
    owner = np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype
    stored, offset, scale = _range(array, source)
    items = array[:, None] if layout == "HW" else np.moveaxis(array, -1, 1) if layout == "HWC" else array
    if array.dtype == np.bool_:
        items = items.astype(np.uint8) * np.uint8(255)
    if options.size is not None and items.shape[2:] != options.size:
        items = _resized(items, np.dtype(stored), offset, scale, options)
    items = _stored(items, np.dtype(stored), options)
    spec = Spec("image", items.shape[1:], classes, owner.name, layout, (offset,), (scale,))
    return Data(items, labels, spec, source)


def _layout(shape: tuple[int, ...], torch_order: bool) -> str:
    first, last = shape[1], shape[3]
    if (first <= 4) != (last <= 4):
        return "CHW" if first <= 4 else "HWC"
    if first == last:
        return "CHW" if torch_order else "HWC"
    return "CHW" if first < last else "HWC"


def _range(array: np.ndarray, source: str) -> Range:
    """What the numbers of images mean; raises :class:`DataError` where that cannot be told."""
    if array.dtype in (np.uint8, np.bool_):
        return np.uint8, 127.5, 127.5
    if array.dtype == np.uint16:
        return np.uint16, 32_767.5, 32_767.5
    ends = [(chunk.min(), chunk.max()) for _, chunk in _chunks(array)]
    low, high = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    if array.dtype.kind in "iu":
        if low >= 0 and high <= 65_535:
            return (np.uint8, 127.5, 127.5) if high <= 255 else (np.uint16, 32_767.5, 32_767.5)
        raise DataError(f"{source} has whole numbers from {low:.0f} to {high:.0f}; images take 0..255 or 0..65535")
    if low >= 0 and high <= 1:
        return np.float32, 0.5, 0.5
    if low >= -1 and high <= 1:
        return np.float32, 0.0, 1.0
    accepted = "images of decimal numbers take 0..1 or -1..1"
    if low >= 0 and high <= 255 and all((chunk == np.floor(chunk)).all() for _, chunk in _chunks(array)):
        raise DataError(
            f"{source} has whole numbers from {low:g} to {high:g} of dtype {array.dtype}; "
            "cast them with .astype('uint8'), or divide them by 255"
        )
    raise DataError(f"{source} has numbers from {low:g} to {high:g}; {accepted}: scale them to one of these")


def _stored(items: np.ndarray, dtype: np.dtype, options: Options) -> np.ndarray:
    """The items in `dtype`: untouched where a file maps them or they already are, else copied where there is room."""
    if isinstance(items, np.memmap):
        return items
    if items.dtype == dtype and items.dtype.isnative and items.flags.c_contiguous:
        return items
    stored = room(items.shape, dtype, options.cache, options.memory_bytes)
    for start, chunk in _chunks(items):
        stored[start : start + len(chunk)] = chunk
    return stored


def _resized(items: np.ndarray, dtype: np.dtype, offset: float, scale: float, options: Options) -> np.ndarray:
    """Images [n, c, h, w] cut and resized channel by channel; a resize may overshoot, so the range is kept."""
    size: Any = options.size
    resized = room((*items.shape[:2], *size), dtype, options.cache, options.memory_bytes)
    for number, item in enumerate(items):
        for channel, plane in enumerate(item):
            pixels = np.asarray(plane, np.uint8 if dtype == np.uint8 else np.float32)
            values = np.asarray(fit(Image.fromarray(np.ascontiguousarray(pixels)), size))
            values = np.rint(values) if dtype.kind == "u" else values
            resized[number, channel] = values.clip(offset - scale, offset + scale)
    return resized


def as_array(value: Any) -> Shaped[np.ndarray, "..."]:
    """A numpy array of a tensor, an array, or what converts itself to one."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype.is_floating_point and value.element_size() < 4 else value).numpy()
    return np.asanyarray(value)
