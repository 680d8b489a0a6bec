"""The generator of BigGAN: class and part of the latent enter at every block; its discriminator is that of SAGAN.

Brock et al. 2018, arXiv:1809.11096, appendix B, figure 15 and table 4.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.networks.attention import SelfAttention
from ganlib.networks.parts import WithClass, crop, pyramid
from ganlib.networks.resnet import UpBlock, generator_widths
from ganlib.networks.spectral import spectral_normalise


class ConditionNorm(nn.Module):
    """Batch normalisation with gain 1 + Wc and bias Vc, linear in the condition c and without constants."""

    def __init__(self, num_features: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_features, affine=False)
        self.gain = nn.Linear(condition, num_features, bias=False)
        self.bias = nn.Linear(condition, num_features, bias=False)

    def forward(
        self, x: Float[Tensor, "batch channels h w"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch channels h w"]:
        return self.norm(x) * (1 + self.gain(condition)[:, :, None, None]) + self.bias(condition)[:, :, None, None]


class BigGANGenerator(nn.Module):
    """The latent cut into one part for the base grid and one for each block, beside a class embedding that all share.

    `width` is the finest stage's, `attention` follows the block after which so many doublings are left. Without classes
    the latent's part alone is the condition. Raises ValueError for a latent with fewer numbers than parts.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent: int,
        width: int,
        shared: int = 128,
        attention: int = 1,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, *base = pyramid(self.height, self.width)
        if latent < doublings + 1:
            raise ValueError(f"a latent of {latent} cannot be cut into {doublings + 1} parts; give it as many or more")
        widths = generator_widths(doublings, width, flat=False)
        self.parts = [latent // (doublings + 1) + (part < latent % (doublings + 1)) for part in range(doublings + 1)]
        self.base = (*base, widths[0])
        self.condition = WithClass(num_classes, shared)
        # Without doublings there is no block for the class to enter.
        self.linear = nn.Linear(self.parts[0] + (0 if doublings else self.condition.width), math.prod(self.base))
        conditions = [part + self.condition.width for part in self.parts[1:]]
        self.blocks = nn.ModuleList(
            UpBlock(a, b, (ConditionNorm(a, c), ConditionNorm(b, c)))
            for (a, b), c in zip(itertools.pairwise(widths), conditions, strict=True)
        )
        self.attend_after = max(doublings - attention, 1) - 1
        self.attention = SelfAttention(widths[self.attend_after + 1]) if doublings else None
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_item = nn.Conv2d(widths[-1], channels, 3, 1, 1)
        orthogonal(self)
        spectral_normalise(self, embeddings=False)

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        first, *parts = latent.split(self.parts, 1)
        x = self.linear(first if parts else self.condition(first, labels))
        x = x.unflatten(1, self.base).permute(0, 3, 1, 2)
        for number, (block, part) in enumerate(zip(self.blocks, parts, strict=True)):
            x = block(x, self.condition(part, labels))
            if self.attention is not None and number == self.attend_after:
                x = self.attention(x)
        return crop(torch.tanh(self.to_item(F.relu(self.norm(x)))), self.height, self.width)


def orthogonal(network: nn.Module) -> None:
    """Orthogonal weights at the start (Saxe et al. 2013, arXiv:1312.6120), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
