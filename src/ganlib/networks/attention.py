"""Self-attention between the places of a picture."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """x + γ W_o Σⱼ softmaxⱼ(qᵢ·kⱼ) vⱼ, with γ zero at the start. Zhang et al. 2018, arXiv:1805.08318, section 3.

    As in the authors' code queries and keys have C/8 channels, values C/2, and keys and values are max-pooled by two.
    The product of matrices is written out: fused attention has no second derivative.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow, half = max(1, width // 8), max(1, width // 2)
        self.query = nn.Conv2d(width, narrow, 1, bias=False)
        self.key = nn.Conv2d(width, narrow, 1, bias=False)
        self.value = nn.Conv2d(width, half, 1, bias=False)
        self.out = nn.Conv2d(half, width, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        query = self.query(x).flatten(2)
        key = F.max_pool2d(self.key(x), 2, ceil_mode=True).flatten(2)
        value = F.max_pool2d(self.value(x), 2, ceil_mode=True).flatten(2)
        share = (query.transpose(1, 2) @ key).softmax(2)
        seen = (value @ share.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gain * self.out(seen)
