"""Many pictures into one array: sizes and kinds are settled first, then all are decoded once, by threads."""

import collections
import concurrent.futures
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

from ganlib.core import Spec
from ganlib.data.arrays import class_numbers
from ganlib.data.dataset import Data
from ganlib.data.images import Content, Header, read_header, read_pixels, reason
from ganlib.data.store import Options, room
from ganlib.errors import DataError

Result = TypeVar("Result")

_PER_CALL = 16  # pictures that a thread takes at a time: small ones take less time than handing over does
_AT_ONCE = 2048  # pictures handed to the threads at a time: a million waiting at once would take a gigabyte


@dataclass
class Gathering:
    """Pictures to read: their names, how to get each, their classes, and those that could not be read."""

    source: str
    names: Sequence[str]
    content: Callable[[int], Content]
    labels: object = None
    classes: tuple[str, ...] = ()  # where `labels` are numbers into it
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    num_threads: int = min(8, os.cpu_count() or 1)


def gather(pictures: Gathering, options: Options) -> Data:
    """Read all pictures; raises :class:`DataError` for mixed sizes without `options.size` or too few readable.

    Grey stays one channel unless a picture has colour; alpha stays only if some pixel is not opaque; 16 bits stay only
    if all pictures have them.
    """
    headers = _headers(pictures)
    size = options.size or _common_size(pictures, headers)
    deep = all(header.deep for header in headers.values())
    alpha = any(header.alpha for header in headers.values())
    channels = 4 if alpha else 1 if all(header.grey for header in headers.values()) else 3
    dtype = np.dtype(np.uint16 if deep and channels == 1 else np.uint8)
    items = room((len(headers), channels, *size), dtype, options.cache, options.memory_bytes)
    chosen = list(headers)

    def read(row: int) -> bool:
        pixels = read_pixels(pictures.content(chosen[row]), channels, dtype == np.uint16, options.size)
        if pixels.shape[1:] != size:
            raise DataError("it changed while it was read")
        items[row] = pixels
        return channels == 4 and bool(pixels[3].min() < 255)

    transparent = _each(pictures, chosen, read)
    kept = sorted(transparent)
    check_readable(pictures.source, pictures.unreadable, len(kept))
    for row, old in enumerate(kept):
        if row != old:
            items[row] = items[old]
    if channels == 4 and not any(transparent.values()):
        channels = 1 if all(headers[chosen[row]].grey for row in kept) else 3
    elif channels == 3 and all(headers[chosen[row]].grey for row in kept):
        channels = 1  # all that had colour turned out unreadable
    items = items[: len(kept), :channels]
    items = items if isinstance(items, np.memmap) else np.ascontiguousarray(items)
    labels, classes = _labels(pictures, [chosen[row] for row in kept])
    spec = picture_spec(channels, size, dtype, classes)
    return Data(items, labels, spec, pictures.source, tuple(sorted(pictures.unreadable)))


def picture_spec(channels: int, size: tuple[int, int], dtype: np.dtype, classes: tuple[str, ...]) -> Spec:
    """What pictures of this many channels, size (height, width) and dtype are."""
    half = 32_767.5 if dtype == np.uint16 else 127.5
    layout = "HW" if channels == 1 else "HWC"
    return Spec("image", (channels, *size), classes, dtype.name, layout, (half,), (half,))


def _headers(pictures: Gathering) -> dict[int, Header]:
    numbers = list(range(len(pictures.names)))
    headers = _each(pictures, numbers, lambda number: read_header(pictures.content(number)))
    check_readable(pictures.source, pictures.unreadable, len(headers))
    return dict(sorted(headers.items()))


def _each(pictures: Gathering, numbers: Sequence[int], work: Callable[[int], Result]) -> dict[int, Result]:
    """`work` of each row of `numbers`; a picture that fails is added to the unreadable ones instead."""
    done: dict[int, Result] = {}

    def attempt(first: int) -> list[str]:
        problems: list[str] = []
        for row in range(first, min(first + _PER_CALL, len(numbers))):
            try:
                done[row] = work(row)
                problems.append("")
            except Exception as error:  # damaged files make decoders raise nearly anything: SyntaxError, struct.error
                problems.append(reason(error))
        return problems

    with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(pictures.num_threads) as pool:
        warnings.simplefilter("ignore")  # on odd metadata, which is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for start in range(0, len(numbers), _AT_ONCE):
            firsts = range(start, min(start + _AT_ONCE, len(numbers)), _PER_CALL)
            for first, problems in zip(firsts, pool.map(attempt, firsts), strict=True):
                named = ((pictures.names[numbers[first + i]], problem) for i, problem in enumerate(problems) if problem)
                pictures.unreadable.extend(named)
    return done


def check_readable(source: str, unreadable: Sequence[tuple[str, str]], num_readable: int) -> None:
    """Refuse a source of which more than half, or all but one, cannot be read."""
    bad = sorted(unreadable)
    listed = "; ".join(f"{name}: {problem}" for name, problem in bad[:5]) + ("; ..." if len(bad) > 5 else "")
    if len(bad) > num_readable:
        raise DataError(
            f"{len(bad)} of {len(bad) + num_readable} pictures in {source} cannot be read ({listed}); "
            "mend or remove them: at least half must be readable"
        )
    if num_readable < 2:
        found = f"{num_readable} readable picture" + (f" (not {listed})" if bad else "")
        raise DataError(f"{source} has {found}; at least 2 are needed to learn from")


def _common_size(pictures: Gathering, headers: dict[int, Header]) -> tuple[int, int]:
    """The one size of all pictures; raises :class:`DataError` that lists the sizes where there are several."""
    counts = collections.Counter(header.size for header in headers.values())
    if len(counts) > 1:
        # A damaged header often shows as a size of its own; what cannot be decoded is unreadable, not of another size.
        usual = counts.most_common(1)[0][0]
        odd = [number for number, header in headers.items() if header.size != usual]
        sound = _each(pictures, odd, lambda row: read_pixels(pictures.content(odd[row]), 4, False, None).shape)
        for row, number in enumerate(odd):
            if row not in sound:
                del headers[number]
        check_readable(pictures.source, pictures.unreadable, len(headers))
        counts = collections.Counter(header.size for header in headers.values())
    if len(counts) > 1:
        examples = {header.size: pictures.names[number] for number, header in reversed(headers.items())}
        listed = "; ".join(
            f"{size[1]} x {size[0]} ({count}, such as {examples[size]})" for size, count in counts.most_common(5)
        )
        raise DataError(
            f"the pictures in {pictures.source} have {len(counts)} sizes, width x height: {listed}"
            f"{'; ...' if len(counts) > 5 else ''}; pass size=64 (--size 64) to cut and resize them to one"
        )
    return next(iter(counts))


def _labels(pictures: Gathering, kept: list[int]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if pictures.labels is None:
        return None, ()
    numbers, classes = class_numbers(pictures.labels, len(pictures.names), pictures.classes)
    return numbers[kept], classes
