"""Whether a network can be differentiated twice: what penalties of gradients need."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def slope_of_penalty(network: nn.Module, call: Callable[[Tensor], Tensor], items: Tensor) -> tuple[float, float]:
    """The derivative of |∂ Σ c·call / ∂ items|² along a random direction of all weights: exact, by finite difference.

    The network and the items are in float64; c is random, so that no sum is constant.
    """
    rng = torch.Generator().manual_seed(5)
    items = items.clone().requires_grad_()
    weights = list(network.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.1 * torch.randn(weight.shape, generator=rng, dtype=weight.dtype))
    direction = [torch.randn(weight.shape, generator=rng, dtype=weight.dtype) for weight in weights]
    mixed = torch.randn(call(items).shape, generator=rng, dtype=items.dtype)

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad((call(items) * mixed).sum(), items, create_graph=True)
        return slope.square().sum()

    gradients = torch.autograd.grad(penalty(), weights, allow_unused=True)
    exact = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
    values, size = [], 1e-6
    for sign in (1, -1):
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=sign * size)
        values.append(float(penalty().detach()))
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=-sign * size)
    return exact, (values[0] - values[1]) / (2 * size)
