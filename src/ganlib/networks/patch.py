"""A discriminator that judges patches. Isola et al. 2017 (pix2pix), arXiv:1611.07004, section 3.2.2 and appendix."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.normalised import initialise, normalised, pad_to_multiple
from ganlib.networks.parts import SLOPE
from ganlib.networks.spectral import spectral_normalise

KERNEL = 4
PATCH_SHARE = 0.6
"""Of the shorter side that a patch may have: 70 of 128 pixels, 34 of 64, 16 of 28."""


def receptive_field(layers: int) -> int:
    """The side in pixels of the patch that one logit sees: from the last layer back, r ← (r - 1) · stride + 4."""
    side = 1
    for stride in (1, 1, *[2] * layers):
        side = (side - 1) * stride + KERNEL
    return side


def layers_for(height: int, width: int) -> int:
    """How many strided layers suit a size: the most, of three, whose patch is within 0.6 of the shorter side."""
    return max((n for n in (2, 3) if receptive_field(n) <= PATCH_SHARE * min(height, width)), default=1)


class PatchDiscriminator(nn.Module):
    """`layers` convolutions that halve, one that does not, and one to a logit per place: [batch, 1, rows, columns].

    All are 4 x 4, the width doubles up to eight times, and the first is not normalised. Under a source picture the two
    are judged together, channel by channel beside each other.

    With classes a logit is w·h + e(class)·h, each product a convolution: the projection of Miyato & Koyama 2018,
    arXiv:1802.05637, at each place. One output per class (StarGAN v2, arXiv:1912.01865) is the same without the part
    that all classes share, which here learns from all items. The features are those after each rectifier.

    Raises ValueError for no layers, and for classes together with a source picture.
    """

    def __init__(
        self,
        channels: int,
        *,
        condition_channels: int = 0,
        width: int = 64,
        layers: int = 3,
        normalisation: Literal["batch", "instance", "none", "spectral"] = "batch",
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"a patch discriminator of {layers} strided layers; accepted is 1 or more")
        if condition_channels and num_classes:
            raise ValueError("a patch discriminator has a source picture or classes as its condition, not both")
        self.condition_channels, self.num_classes = condition_channels, num_classes
        self.least = 3 * 2**layers  # with fewer pixels there would be no logit
        kind = "none" if normalisation == "spectral" else normalisation
        widths = [width * min(2**level, 8) for level in range(layers + 1)]
        first = nn.Conv2d(channels + condition_channels, widths[0], KERNEL, 2, 1)
        stages = [nn.Sequential(first, nn.LeakyReLU(SLOPE))]
        for level in range(1, layers + 1):
            stride, inputs, outputs = 1 + (level < layers), widths[level - 1], widths[level]
            layer = nn.Conv2d(inputs, outputs, KERNEL, stride, 1, bias=kind == "none")
            stages.append(nn.Sequential(*normalised(layer, kind, outputs), nn.LeakyReLU(SLOPE)))
        self.stages = nn.ModuleList(stages)
        self.last = nn.Conv2d(widths[-1], 1 + num_classes, KERNEL, 1, 1)
        initialise(self)
        if normalisation == "spectral":
            spectral_normalise(self)

    def forward(
        self,
        items: Float[Tensor, "batch channels height width"],
        condition: Float[Tensor, "batch condition_channels height width"] | Int[Tensor, " batch"] | None = None,
    ) -> Verdict:
        x, features = items, []
        if self.condition_channels:
            if condition is None:
                raise ValueError("this network was built for a source picture beside each item: pass it as condition")
            x = torch.cat([items, condition], 1)
        x = pad_to_multiple(x, 1, self.least)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        logits = self.last(x)
        if self.num_classes:
            if condition is None:
                raise ValueError("this network was built with classes: pass labels, integers [batch]")
            places = torch.arange(len(logits), device=logits.device)
            logits = logits[:, :1] + logits[places, 1 + condition][:, None]
        return Verdict((logits,), tuple(features))
