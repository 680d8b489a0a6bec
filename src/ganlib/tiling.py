"""Pictures too large for a generator at once: in overlapping tiles, blended where they meet."""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Given = Float[Tensor, "batch channels height width"]
Made = Float[Tensor, "batch outputs rows columns"]

SIDE, MADE_SIDE = 1024, 2048
"""No call of a generator sees more pixels than the square of the one, or makes more than that of the other."""

LEAST_SIDE = 256
"""Of a tile; no picture with fewer pixels is tiled, whatever is made of it."""

MARGIN, RAMP = 48, 32
"""At each edge between tiles so many pixels count for nothing, and over so many more the weight rises to 1."""

OVERLAP = 2 * MARGIN + RAMP
ALIGN = 64
"""Tiles begin at multiples, so that halvings fall on the same pixels in all of them."""

CORNER = 16


def piecewise(make: Callable[[Tensor], Tensor], pictures: Given) -> Made:
    """What `make` makes of pictures: at once, or in tiles where they have more pixels than one call may see or make."""
    num_pixels = pictures.shape[2] * pictures.shape[3]
    if num_pixels <= LEAST_SIDE**2:
        return make(pictures)
    corner = pictures[:, :, :CORNER, :CORNER]
    scale = make(corner).shape[2] // corner.shape[2]
    side = min(max(MADE_SIDE // scale // ALIGN * ALIGN, LEAST_SIDE), SIDE)
    return make(pictures) if num_pixels <= side**2 else in_tiles(make, pictures, scale=scale, side=side)


def in_tiles(make: Callable[[Tensor], Tensor], pictures: Given, *, scale: int, side: int) -> Made:
    """What `make` makes of tiles of up to `side` pixels, put together; all is `scale` times larger than the pictures.

    Where a pixel depends on nothing more than :data:`MARGIN` pixels away this is what is made of the whole, to
    rounding. Elsewhere it is not: a U-Net sees further, and instance normalisation takes the statistics of its tile for
    those of the picture. Then neighbouring tiles differ, and are mixed by weights that change linearly over
    :data:`RAMP` pixels, so that no seam shows. `side` is a multiple of :data:`ALIGN` and over :data:`OVERLAP`.
    """
    made = None
    rows, columns = (cuts(length, side) for length in pictures.shape[2:])
    for (top, bottom), (left, right) in itertools.product(rows, columns):
        tile = make(pictures[:, :, top:bottom, left:right])
        if made is None:
            made = tile.new_zeros(*tile.shape[:2], *(scale * length for length in pictures.shape[2:]))
        across = _weights(left, right, pictures.shape[3], scale).to(tile)
        down = _weights(top, bottom, pictures.shape[2], scale).to(tile)
        made[:, :, scale * top : scale * bottom, scale * left : scale * right] += tile * (down[:, None] * across)
    assert made is not None
    return made


def cuts(length: int, side: int) -> list[tuple[int, int]]:
    """Where the tiles along one side begin and end: as equal as :data:`ALIGN` allows, none over `side`."""
    if length <= side:
        return [(0, length)]
    count = math.ceil((length - OVERLAP) / (side - OVERLAP))
    even = math.ceil((length + (count - 1) * OVERLAP) / count / ALIGN) * ALIGN
    return [(start, min(start + even, length)) for start in range(0, length - OVERLAP, even - OVERLAP)]


def _weights(start: int, end: int, length: int, scale: int) -> Float[Tensor, " pixels"]:
    """How much each pixel of a tile counts: those of the tiles that cover it add up to 1."""
    place = torch.arange(scale * (end - start)) + 0.5
    rising = ((place / scale - MARGIN) / RAMP).clamp(0, 1)
    weights = torch.ones_like(rising)
    if start > 0:
        weights = weights * rising
    return weights * rising.flip(0) if end < length else weights
