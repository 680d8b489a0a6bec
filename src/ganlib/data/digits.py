"""Digits in colour channels: a data set whose thousand modes can be counted."""

import numpy as np
from jaxtyping import Int64, Integer, UInt8


def stacked(
    images: Integer[np.ndarray, "n height width"], classes: Integer[np.ndarray, " n"], num_items: int, *, seed: int
) -> UInt8[np.ndarray, "items height width 3"]:
    """Three pictures of random digits each, one in each channel; all 1,000 triples of digits come equally often.

    Metz et al. 2016, arXiv:1611.02163, draw the pictures evenly instead, so that their modes are as frequent as the
    digits are.
    """
    modes = triples(num_items)
    members = [np.flatnonzero(classes == digit) for digit in range(10)]
    # The raw bits of a bit generator never change with a release of numpy; what `Generator` makes of them may.
    raw = np.random.PCG64(np.random.SeedSequence([seed, num_items])).random_raw(modes.size).reshape(modes.shape)
    chosen = np.empty_like(modes)
    for digit, numbers in enumerate(members):
        where = modes == digit
        chosen[where] = numbers[raw[where] % len(numbers)]
    return np.ascontiguousarray(images[chosen].transpose(0, 2, 3, 1)).astype(np.uint8)


def triples(num_items: int) -> Int64[np.ndarray, "items 3"]:
    """The digits of each stack: 000, 001, ... 999, and again."""
    modes = np.arange(num_items, dtype=np.int64)
    return np.stack([modes // 100 % 10, modes // 10 % 10, modes % 10], 1)
