"""From picture to picture by an encoder and a decoder with skips between them. Isola et al. 2017, arXiv:1611.07004."""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.networks.normalised import Normalisation, initialise, normalised, pad_to_multiple
from ganlib.networks.parts import SLOPE, crop

DROPPED_LAYERS = 3
"""The paper drops numbers of the first three layers of the decoder, the coarsest."""


def depth_for(height: int, width: int) -> int:
    """How many halvings suit a size: down to about one place on the shorter side, as the paper's 8 for 256 pixels."""
    return min(8, max(2, round(math.log2(min(height, width)))))


class UNetGenerator(nn.Module):
    """`depth` strided convolutions and as many transposed ones, each given the map of its size; tanh.

    The paper's appendix, section 6.1.1. The first and the innermost layer are not normalised: over one place, instance
    normalisation leaves nothing. Noise is dropout in the coarsest layers of the decoder, in training alone: the paper
    keeps it afterwards too, and has another result each time. Pictures of any size are padded to a multiple of 2^depth,
    and the result is cropped.

    With `adds` what is made is the given picture plus that, its mean channel where the numbers of channels differ: the
    paper has no skip at full size, so that for a restoration it would first have to learn to copy.

    Raises ValueError for a depth under two.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        width: int = 64,
        depth: int = 8,
        normalisation: Normalisation = "batch",
        dropout: float = 0.5,
        adds: bool = False,
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"a U-Net of depth {depth}; accepted is 2 or more")
        self.multiple, self.dropout, self.adds = 2**depth, dropout, adds
        # Without a layer whose dropout would show as single pixels: the finest two make the picture.
        self.num_dropped = min(DROPPED_LAYERS, depth - 2)
        widths = [width * min(2**level, 8) for level in range(depth)]
        bias = normalisation == "none"

        def halving(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=bias)

        self.first = halving(channels_in, widths[0])
        self.encoder = nn.ModuleList(
            nn.Sequential(*normalised(halving(a, b), normalisation, b)) for a, b in itertools.pairwise(widths[:-1])
        )
        self.innermost = halving(widths[-2], widths[-1])
        inputs = [widths[-1], *(2 * count for count in widths[-2::-1])]  # each but the first has the skip beside it
        self.decoder = nn.ModuleList(
            nn.Sequential(*normalised(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=bias), normalisation, b))
            for a, b in zip(inputs, widths[-2::-1], strict=False)
        )
        self.last = nn.ConvTranspose2d(inputs[-1], channels_out, 4, 2, 1)
        initialise(self)

    def forward(
        self, items: Float[Tensor, "batch channels_in height width"]
    ) -> Float[Tensor, "batch channels_out height width"]:
        skips = [self.first(pad_to_multiple(items, self.multiple))]
        for layer in self.encoder:
            skips.append(layer(F.leaky_relu(skips[-1], SLOPE)))
        x = self.innermost(F.leaky_relu(skips[-1], SLOPE))
        for level, (layer, skip) in enumerate(zip(self.decoder, reversed(skips), strict=True)):
            x = layer(F.relu(x))
            if level < self.num_dropped:
                x = F.dropout(x, self.dropout, self.training)
            x = torch.cat([skip, x], 1)
        made = crop(torch.tanh(self.last(F.relu(x))), *items.shape[2:])
        if not self.adds:
            return made
        return made + (items if items.shape[1] == made.shape[1] else items.mean(1, keepdim=True))
