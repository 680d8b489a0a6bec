"""Regularisers of weights: what is asked of them whatever the data. Usable alone."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ganlib.core import WeightPenalty


@final
@dataclass(frozen=True)
class OrthogonalRegularisation(WeightPenalty):
    """Σ ‖WWᵀ ⊙ (1 - I)‖²_F over convolutions and linear layers, a row of W for each output (bias excluded).

    Brock et al. 2018, arXiv:1809.11096, equation 3: filters become orthogonal, their lengths stay free, so that latents
    cut short still give whole pictures. Embeddings are left out, as in the authors' code; of spectrally normalised
    layers the weights as they are stored count.
    """

    def __call__(self, network: nn.Module) -> Float[Tensor, ""]:
        """Its value. Raises ValueError where the network has no such layer."""
        left_out = {
            weight for layer in network.modules() if isinstance(layer, nn.Embedding) for weight in layer.parameters()
        }
        matrices = [weight.flatten(1) for weight in network.parameters() if weight.ndim > 1 and weight not in left_out]
        if not matrices:
            raise ValueError("orthogonal regularisation needs convolutions or linear layers, and there are none")
        return torch.stack([_products_of_others(matrix) for matrix in matrices]).sum()


def _products_of_others(matrix: Float[Tensor, "outputs inputs"]) -> Float[Tensor, ""]:
    """The sum of the squared products of different rows."""
    if matrix.shape[0] > matrix.shape[1]:
        # By the smaller product, as ‖WWᵀ‖ = ‖WᵀW‖. Nothing cancels: so many rows cannot be orthogonal.
        return (matrix.T @ matrix).square().sum() - matrix.square().sum(1).square().sum()
    products = matrix @ matrix.T
    return (products - torch.diag(products.diagonal())).square().sum()
