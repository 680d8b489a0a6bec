"""In which order items are seen: a pure function of the seed, so that a resumed run needs no saved state."""

import collections
import concurrent.futures
from collections.abc import Generator, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

Item = TypeVar("Item")


def permutation(num_items: int, seed: int, epoch: int) -> Int64[np.ndarray, " num_items"]:
    """The order of one epoch."""
    # numpy promises that the raw bits of a bit generator never change; `Generator.permutation` may change with a
    # release, and a run resumed under it would see other items. Ties among 64-bit keys are settled by the stable sort.
    keys = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(num_items)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def positions(num_items: int, batch_items: int, seed: int, items_seen: int) -> Iterator[Int64[np.ndarray, " batch"]]:
    """Endless batches of item numbers: cuts of the infinite row of epochs, from position `items_seen` on.

    Position p belongs to epoch p // num_items; a batch that straddles an epoch's end takes from both.
    """
    epoch, start = divmod(items_seen, num_items)
    order = permutation(num_items, seed, epoch)
    while True:
        parts: list[np.ndarray] = []
        missing = batch_items
        while missing:
            part = order[start : start + missing]
            parts.append(part)
            missing -= len(part)
            start += len(part)
            if start == num_items:
                epoch, start = epoch + 1, 0
                order = permutation(num_items, seed, epoch)
        yield parts[0] if len(parts) == 1 else np.concatenate(parts)


def prefetch(items: Generator[Item, None, None], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, of which one thread makes up to `depth` ahead; closing it ends the thread.

    An exception of `items` is raised where its item would have come.
    """
    end = object()
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ganlib-prefetch") as pool:
        waiting = collections.deque(pool.submit(next, items, end) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()
            pool.submit(items.close)  # in the thread that runs it: a generator cannot be closed while it works
