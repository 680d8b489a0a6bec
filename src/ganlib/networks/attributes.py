"""Pictures edited towards attributes, where a mask allows it. Pumarola et al. 2018 (GANimation), arXiv:1807.09251.

The manner is StarGAN's, Choi et al. 2018, arXiv:1711.09020: one generator for all attributes, and a discriminator that
tells them too.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Verdict
from ganlib.networks.normalised import InstanceNorm, initialise, pad_to_multiple
from ganlib.networks.parts import crop, pad
from ganlib.networks.translator import TranslatingBody

LEAK = 0.01
"""The slope of the discriminator's rectifiers below zero, as in StarGAN."""


OPEN = -3.0
"""The mask's bias at the start: what it keeps from the beginning the colour map never learns to paint."""


class Edit(NamedTuple):
    """x' = (1 - A) C + A x, and what it was made of. Where the mask is 1 the picture stays."""

    items: Float[Tensor, "batch channels height width"]
    colour: Float[Tensor, "batch channels height width"]  # C, from -1 to 1
    mask: Float[Tensor, "batch 1 height width"]  # A, from 0 to 1


class AdaptiveBlock(nn.Module):
    """A residual block whose normalisations have gains and biases of the attributes.

    AdaIN, Huang & Belongie 2017, arXiv:1703.06868; in a block as in Choi et al. 2020 (StarGAN v2), arXiv:1912.01865.
    """

    def __init__(self, width: int, num_attributes: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(InstanceNorm() for _ in range(2))
        self.affine = nn.ModuleList(nn.Linear(num_attributes, 2 * width) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "batch width h w"], attributes: Float[Tensor, "batch attributes"]
    ) -> Float[Tensor, "batch width h w"]:
        made = x
        for number, (layer, norm, affine) in enumerate(zip(self.convolutions, self.norms, self.affine, strict=True)):
            gain, bias = affine(attributes.to(x.dtype))[:, :, None, None].chunk(2, 1)
            made = norm(layer(F.pad(made, (1, 1, 1, 1), mode="reflect"))) * (1 + gain) + bias
            made = F.relu(made) if number == 0 else made
        return x + made


class AttributeGenerator(nn.Module):
    """GANimation's generator: a mask and a colour map, from a picture and the attributes that it shall have.

    The attributes lie beside the picture's channels, each the same at all places. Instance normalisation would take
    just that away again, so the first layer has none (the papers normalise it, and pad with zeros, at whose edges alone
    the attributes are then seen). The body is :class:`ganlib.networks.translator.TranslatingBody`, whose halvings and
    doublings have 3 x 3 kernels for the papers' 4 x 4. `adaptive` tells the residual blocks too
    (:class:`AdaptiveBlock`): from the first layer alone a network must carry the attributes through every
    normalisation that follows. Any size: padded, and cropped back. Raises ValueError for no blocks.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_attributes: int,
        width: int = 64,
        blocks: int = 6,
        downsamplings: int = 2,
        adaptive: bool = False,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"an attribute network of {blocks} residual blocks; accepted is 1 or more")
        self.body = TranslatingBody(
            channels + num_attributes,
            width=width,
            blocks=0 if adaptive else blocks,
            downsamplings=downsamplings,
            first_normalised=False,
        )
        self.adaptive = nn.ModuleList(
            AdaptiveBlock(self.body.widths[-1], num_attributes) for _ in range(blocks if adaptive else 0)
        )
        self.colour = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh())
        to_mask = nn.Conv2d(width, 1, 7)
        self.mask = nn.Sequential(nn.ReflectionPad2d(3), to_mask, nn.Sigmoid())
        initialise(self)
        assert to_mask.bias is not None
        nn.init.constant_(to_mask.bias, OPEN)
        for module in self.adaptive.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def forward(
        self,
        items: Float[Tensor, "batch channels height width"],
        attributes: Float[Tensor, "batch attributes"],
    ) -> Edit:
        height, width = items.shape[2:]
        padded = pad_to_multiple(items, self.body.multiple, self.body.least)
        planes = attributes.to(padded.dtype)[:, :, None, None].expand(-1, -1, *padded.shape[2:])
        x, _ = self.body.encode(torch.cat([padded, planes], 1), len(self.body.blocks))
        for block in self.adaptive:
            x = block(x, attributes)
        x = self.body.doublings(x)
        colour, mask = crop(self.colour(x), height, width), crop(self.mask(x), height, width)
        return Edit((1 - mask) * colour + mask * items, colour, mask)


def attribute_layers_for(height: int, width: int) -> int:
    """How many halvings suit a size: the most, of six, that leave two places on the shorter side; six at 128 pixels."""
    return min(6, max(1, math.floor(math.log2(min(height, width) / 2))))


class AttributeDiscriminator(nn.Module):
    """StarGAN's discriminator: strided 4 x 4 convolutions, each twice as wide, no normalisation, two heads.

    A logit per place, [batch, 1, rows, columns], and the attributes of the picture, [batch, attributes], as
    ``Verdict.classes``: the logits of classes, or the values of what is continuous. Both heads are convolutions, 3 x 3
    and as large as the last grid. It knows nothing of the wanted attributes, unless it is to be `told`: then it has a
    second logit for the whole picture, by projection on them (Miyato & Koyama 2018, arXiv:1802.05637).
    """

    def __init__(
        self, shape: Sequence[int], *, num_attributes: int, width: int = 64, layers: int = 6, told: bool = False
    ) -> None:
        super().__init__()
        channels, *sides = shape
        grid = tuple(-(-side // 2**layers) for side in sides)
        self.size = tuple(side * 2**layers for side in grid)
        widths = [channels, *(width * 2**level for level in range(layers))]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(LEAK)) for a, b in itertools.pairwise(widths)
        )
        self.patches = nn.Conv2d(widths[-1], 1, 3, 1, 1, bias=False)
        self.attributes = nn.Conv2d(widths[-1], num_attributes, grid, bias=False)
        self.whole = nn.Conv2d(widths[-1], 1 + num_attributes, grid, bias=False) if told else None

    def forward(
        self,
        items: Float[Tensor, "batch channels height width"],
        attributes: Float[Tensor, "batch attributes"] | None = None,
    ) -> Verdict:
        x, features = pad(items, *self.size), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        logits = [self.patches(x)]
        if self.whole is not None:
            if attributes is None:
                raise ValueError("this network was built to be told attributes: pass them, [batch, attributes]")
            own = self.whole(x).flatten(1)
            logits.append(own[:, 0] + (own[:, 1:] * attributes.to(own.dtype)).sum(1))
        return Verdict(tuple(logits), tuple(features), self.attributes(x).flatten(1))
