"""What happens to a picture before a trained network sees it: channels, size, range.

All of it changes scores, so it is part of the name or of the digest.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DataError

Triple = tuple[float, float, float]
Resize = Literal["tf1", "clean"]
Images = Float[Tensor, "batch channels height width"]

VERSION = 1
"""Raised whenever the same picture would reach a network in other numbers; part of every digest."""

IMAGENET_MEAN: Triple = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_SCALE: Triple = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""Mean and deviation of the colours of ImageNet, in levels of 8 bits."""


@dataclass(frozen=True)
class Preparation:
    """Images in [-1, 1] to what a network takes: levels 0 to 255, `side` × `side` pixels, (level − mean) / scale.

    Grey images are repeated to three channels. `side` None keeps the size. Raises :class:`DataError` for anything but
    images of one or three channels.
    """

    side: int | None
    resize: Resize
    mean: Triple
    scale: Triple

    @property
    def name(self) -> str:
        """The size and how it is reached, as in ``299-tf1``."""
        return "as-is" if self.side is None else f"{self.side}-{self.resize}"

    @property
    def definition(self) -> str:
        """All of it in one line, for a digest."""
        return f"{self!r}, version {VERSION}"

    def __call__(self, images: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch 3 new_height new_width"]:
        levels = colours(images) * 127.5 + 127.5
        if self.side is not None:
            levels = resize_tf1(levels, self.side) if self.resize == "tf1" else resize_clean(levels, self.side)
        mean, scale = levels.new_tensor([self.mean, self.scale]).view(2, 1, 3, 1, 1)
        return (levels - mean) / scale


def colours(images: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch 3 height width"]:
    """Images of three channels; grey ones with their channel three times. DataError for any other number."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 1:
        raise DataError(
            f"items of shape {tuple(images.shape)}; a trained network takes images (batch, channels, height, width) "
            "of 1 or 3 channels; drop other channels or use pixels"
        )
    return images.float().expand(-1, 3, -1, -1)


def resize_clean(images: Images, side: int) -> Float[Tensor, "batch channels side side"]:
    """Bicubic with antialiasing, in floating point, clipped to [0, 255]. Parmar et al. 2022, arXiv:2104.11222.

    The filter is that of Pillow, Keys' kernel with a = −1/2, stretched where pictures shrink.
    """
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)


def resize_tf1(images: Images, side: int) -> Float[Tensor, "batch channels side side"]:
    """Bilinear between the two pixels at ``i · size / side`` and the next, as TensorFlow 1 did it.

    No half-pixel centres and no antialiasing: pictures move by up to half a pixel and shrink with aliases. Published
    FID values were made so. The arithmetic is that of float32, in TensorFlow's order.
    """
    (top, bottom, down), (left, right, across) = (_neighbours(size, side, images) for size in images.shape[2:])
    down = down[:, None]
    rows = images[:, :, top]
    upper = rows[..., left] + (rows[..., right] - rows[..., left]) * across
    rows = images[:, :, bottom]
    lower = rows[..., left] + (rows[..., right] - rows[..., left]) * across
    return upper + (lower - upper) * down


def _neighbours(size: int, side: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels that each new pixel lies between, and how far on the way to the second."""
    place = torch.arange(side, dtype=torch.float32, device=like.device) * torch.tensor(size / side, dtype=torch.float32)
    first = place.long()
    return first, (first + 1).clamp(max=size - 1), place - first
