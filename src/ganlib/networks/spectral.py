"""Spectral normalisation: weights divided by their largest singular value."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

START_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """W / σ(W) by one power iteration a call: v = Wᵀu / |Wᵀu|, u = Wv / |Wv|, σ = uᵀWv, where u and v are constants.

    Miyato et al. 2018, arXiv:1802.05957, algorithm 1. The rows of W are the outputs, all else its columns. Only u is
    kept, and only training moves it. Since v and σ follow from its direction alone, it may be the mean of several.
    """

    def __init__(self, weight: Float[Tensor, "outputs *inputs"], transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed  # the weights of transposed convolutions are [inputs, outputs, height, width]
        self.u: Tensor
        self.register_buffer("u", torch.randn(weight.shape[int(transposed)], dtype=weight.dtype, device=weight.device))
        with torch.no_grad():
            for _ in range(START_ITERATIONS):
                self(weight)

    def forward(self, weight: Float[Tensor, "outputs *inputs"]) -> Float[Tensor, "outputs *inputs"]:
        # In bfloat16 the singular value would have two digits.
        with torch.autocast(weight.device.type, enabled=False):
            matrix = (weight.transpose(0, 1) if self.transposed else weight).flatten(1)
            with torch.no_grad():
                v = F.normalize(self.u @ matrix, dim=0)
            image = matrix @ v
            u = F.normalize(image.detach(), dim=0)
            if self.training:
                self.u.copy_(u)
            return weight / torch.dot(u, image)


def spectral_normalise(network: nn.Module, *, embeddings: bool = True) -> nn.Module:
    """Normalise each convolution, linear layer and embedding by :class:`SpectralNorm`, in place; returns the network.

    Call it when the weights have their starting values: they must not be zero.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, *((nn.Embedding,) if embeddings else ()))
    for module in list(network.modules()):
        if isinstance(module, kinds):
            norm = SpectralNorm(module.weight, transposed=isinstance(module, nn.ConvTranspose2d))
            register_parametrization(module, "weight", norm)
    return network
