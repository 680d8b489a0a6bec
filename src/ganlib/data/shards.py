"""A store whose items stay in tar files and are read when they are asked for: data larger than memory."""

import concurrent.futures
import io
import os
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Integer, Shaped

from ganlib.data.images import Header, read_header, read_pixels, reason
from ganlib.data.tars import Members
from ganlib.errors import DataError

_PER_CALL = 16  # items that a thread takes at a time


def num_threads() -> int:
    """As many as this process may use, up to 8: decoding frees the interpreter lock."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min(8, len(allowed))


@final
@dataclass(frozen=True, eq=False)
class Shards:
    """The store of a :class:`Data` whose items lie in tars, each a picture file or .npy.

    `shape` is that of all items, [items, *item], channels first; pictures are cut and resized to `size` where it is
    given. `digests` are those of the tars that `prepare` made, whose items are all known to fit; empty for others.
    """

    members: Members
    shape: tuple[int, ...]
    dtype: np.dtype
    size: tuple[int, int] | None = None
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    def take(self, rows: Integer[np.ndarray, " batch"]) -> Shaped[np.ndarray, "batch *item"]:
        """The items with these numbers, read and decoded by threads; raises what :meth:`Members.content` raises.

        Raises :class:`DataError` that names the member and the tar for what is no item of this shape.
        """
        items = np.empty((len(rows), *self.shape[1:]), self.dtype)

        def fill(first: int) -> None:
            for place in range(first, min(first + _PER_CALL, len(rows))):
                items[place] = self._item(int(rows[place]))

        firsts = range(0, len(rows), _PER_CALL)
        if len(firsts) < 2 or num_threads() == 1:
            for first in firsts:
                fill(first)
        else:
            # Threads of their own for each call cost a third of a millisecond, and nothing outlives it or a fork.
            with concurrent.futures.ThreadPoolExecutor(min(num_threads(), len(firsts))) as pool:
                list(pool.map(fill, firsts))
        return items

    def _item(self, row: int) -> np.ndarray:
        content, channels, deep = self.members.content(row), self.shape[1], self.dtype == np.uint16
        try:
            if content[:6] == b"\x93NUMPY":
                item = np.load(io.BytesIO(content), allow_pickle=False)
            else:
                if not self.digests:
                    _check_fits(read_header(content), channels, deep)
                item = read_pixels(content, channels, deep, self.size)
        except Exception as error:  # damaged files make decoders raise nearly anything
            raise DataError(
                f"{self.members.name(row)} cannot be read: {reason(error)}; restore the tar, "
                "or run `ganlib prepare` on where the pictures came from, which leaves out what cannot be read"
            ) from error
        if item.shape != self.shape[1:] or item.dtype != self.dtype:
            raise DataError(
                f"{self.members.name(row)} is {item.dtype} of shape {item.shape}, but the others are {self.dtype} of "
                f"shape {self.shape[1:]}; pass size=64 (--size 64) to cut and resize pictures to one size"
            )
        return item


def _check_fits(header: Header, channels: int, deep: bool) -> None:
    """Refuse a picture that would lose what it has: opening looked at some pictures only."""
    lost = [("colour", not header.grey and channels == 1), ("transparency", header.alpha and channels != 4)]
    for name, is_lost in [*lost, ("16 bits", header.deep and not deep)]:
        if is_lost:
            raise DataError(f"it has {name}, which those looked at when the tars were opened have not")
