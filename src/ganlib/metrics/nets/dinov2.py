"""The vision transformers of DINOv2, with parameters named as in the official weight files."""

from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PATCH = 14
"""Pixels on a side of a patch; images are a multiple of it."""

Layer = Literal["cls"]


@final
class DinoV2(nn.Module):
    """A vision transformer whose normalised class token is the feature. Oquab et al. 2023, arXiv:2304.07193.

    Pre-norm blocks (Dosovitskiy et al. 2020, arXiv:2010.11929) with a learned scale on each branch (Touvron et al.
    2021, arXiv:2103.17239). ViT-S/14 is ``DinoV2(384, 6)``, ViT-B/14 ``DinoV2(768, 12)``. Input: colours with the mean
    and deviation of ImageNet; the learned positions of 37 × 37 patches are interpolated to its size.
    """

    LAYERS: ClassVar[tuple[str, ...]] = ("cls",)

    def __init__(self, width: int, num_heads: int, *, depth: int = 12, positions_side: int = 37) -> None:
        super().__init__()
        self.positions_side = positions_side
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions_side**2, width))
        self.patch_embed = _Patches(width)
        self.blocks = nn.ModuleList(_Block(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        patches = self.patch_embed(images)
        rows, columns = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], 1)
        tokens = tokens + positions(self.pos_embed, self.positions_side, rows, columns)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


def positions(
    learned: Float[Tensor, "1 tokens width"], side: int, rows: int, columns: int
) -> Float[Tensor, "1 new_tokens width"]:
    """The learned positions of `side` × `side` patches, interpolated to `rows` × `columns`; that of the class stays.

    Bicubic without antialiasing. The sampling step is side / (rows + 0.1), as in the code that made the published
    features: the 0.1 was put there against rounding and moves every sample, so it is part of the network.
    """
    if rows == columns == side:
        return learned
    grid = learned[:, 1:].mT.unflatten(2, (side, side))
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([learned[:, :1], grid.flatten(2).mT], 1)


@final
class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)


@final
class _Block(nn.Module):
    """x + γ₁ · attention(norm(x)), then x + γ₂ · perceptron(norm(x))."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, num_heads)
        self.ls1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _Perceptron(width)
        self.ls2 = _Scale(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


@final
class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


@final
class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


@final
class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma
