"""Enlarging pictures: residual-in-residual dense blocks. Wang et al. 2018 (ESRGAN), arXiv:1809.00219, section 3.1.

All is convolution, so that pictures of any size are enlarged.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.networks.parts import SLOPE

RESIDUAL_SCALE = 0.2
"""By which what a block adds is multiplied, as in the paper; the convolutions begin a tenth as large as usual."""


def reduced(
    items: Float[Tensor, "batch channels height width"], scale: int
) -> Float[Tensor, "batch channels rows columns"]:
    """Pictures `scale` times smaller: bicubic with antialiasing, as Pillow's and Matlab's, in the range of 8 bits.

    Sides that are no multiple of `scale` are rounded up.
    """
    rows, columns = (-(-side // scale) for side in items.shape[2:])
    made = F.interpolate(items.float(), (rows, columns), mode="bicubic", align_corners=False, antialias=True)
    return made.clamp(-1, 1)


def bicubic(
    items: Float[Tensor, "batch channels height width"], scale: int
) -> Float[Tensor, "batch channels rows columns"]:
    """Pictures `scale` times larger by bicubic interpolation, what everyone has without learning."""
    height, width = items.shape[2:]
    return F.interpolate(
        items.float(), (scale * height, scale * width), mode="bicubic", align_corners=False, antialias=True
    )


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each of all before it, the last of which is added to the input, times 0.2."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        outputs = (*[growth] * 4, width)
        self.layers = nn.ModuleList(
            nn.Conv2d(width + number * growth, count, 3, 1, 1) for number, count in enumerate(outputs)
        )
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.kaiming_normal_(layer.weight)
            with torch.no_grad():
                layer.weight.mul_(0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        known = [x]
        for layer in list(self.layers)[:-1]:
            known.append(F.leaky_relu(layer(torch.cat(known, 1)), SLOPE))
        return x + RESIDUAL_SCALE * self.layers[-1](torch.cat(known, 1))


class ResidualDenseBlock(nn.Module):
    """x + 0.2 · B₃(B₂(B₁(x))), of three dense blocks."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        return x + RESIDUAL_SCALE * self.blocks(x)


class EnlargingGenerator(nn.Module):
    """The bicubic enlargement and what the network adds to it; the last convolution begins near zero.

    Enlarged step by step, nearest neighbours then a convolution, where the pixels of a transposed one would show. The
    paper's network is the same without the bicubic part, which spares it to learn what is known.
    """

    def __init__(self, channels: int, *, scale: int, width: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.scale, self.steps = scale, steps_of(scale)
        self.first = nn.Conv2d(channels, width, 3, 1, 1)
        self.blocks = nn.Sequential(*(ResidualDenseBlock(width, growth) for _ in range(blocks)))
        self.trunk = nn.Conv2d(width, width, 3, 1, 1)
        self.enlarging = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in self.steps)
        self.fine = nn.Conv2d(width, width, 3, 1, 1)
        self.last = nn.Conv2d(width, channels, 3, 1, 1)
        assert self.last.bias is not None
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)

    def forward(
        self, low: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels height width"]:
        x = self.first(low)
        x = x + self.trunk(self.blocks(x))
        for step, layer in zip(self.steps, self.enlarging, strict=True):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=float(step), mode="nearest")), SLOPE)
        return bicubic(low, self.scale) + self.last(F.leaky_relu(self.fine(x), SLOPE))


def steps_of(scale: int) -> tuple[int, ...]:
    """The factors, all primes, in which a picture grows by `scale`."""
    for prime in range(2, scale + 1):
        if scale % prime == 0:
            return (prime, *steps_of(scale // prime))
    return ()
