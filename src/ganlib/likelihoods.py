"""How probable items are around a mean: of 8-bit pictures a probability, of vectors a density. Usable alone."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

LEVEL = 2 / 255
"""The step between two of the 256 levels of 8 bits in [-1, 1]."""
LEAST_LOG_SCALE = -7.0
"""Scales are kept above e⁻⁷: a constant column would make a density without bound."""


def discretised_logistic(
    items: Float[Tensor, "batch channels *rest"],
    mean: Float[Tensor, "batch channels *rest"],
    log_scale: Float[Tensor, " channels"],
) -> Float[Tensor, " batch"]:
    """log P(x): the logistic distribution around `mean`, summed over each of the 256 levels in [-1, 1].

    P(x) = σ(a) - σ(b) with a, b = (x ± ½ level - mean) / s, and all that is beyond black and white goes to these two.
    The 256 probabilities sum to 1, so that it is no density. Kingma et al. 2016, arXiv:1606.04934; Salimans et al.
    2017, arXiv:1701.05517. Written as σ(a) σ(-b) (1 - e^(b-a)), which loses no digits in the tails.
    """
    shaped = log_scale.clamp(min=LEAST_LOG_SCALE).view(-1, *[1] * (items.ndim - 2))
    rate, distance = (-shaped).exp(), items - mean.float()
    above, below = rate * (distance + LEVEL / 2), rate * (distance - LEVEL / 2)
    left, right = logsigmoid(above), logsigmoid(-below)
    inner = left + right + torch.log(-torch.expm1(-rate * LEVEL))
    edge = 1 - LEVEL / 4
    return torch.where(items < -edge, left, torch.where(items > edge, right, inner)).flatten(1).sum(1)


def gaussian(
    items: Float[Tensor, "batch columns *rest"],
    mean: Float[Tensor, "batch columns *rest"],
    log_scale: Float[Tensor, " columns"],
) -> Float[Tensor, " batch"]:
    """log N(x; mean, s²), a density: its negative may be below zero."""
    shaped = log_scale.clamp(min=LEAST_LOG_SCALE).view(-1, *[1] * (items.ndim - 2))
    squares = ((items - mean.float()) * (-shaped).exp()).square()
    return -(0.5 * squares + shaped + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def divergence_from_prior(
    mean: Float[Tensor, "batch latent"], log_variance: Float[Tensor, "batch latent"]
) -> Float[Tensor, " batch"]:
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)) = ½ Σ (μ² + σ² - 1 - log σ²); Kingma & Welling 2014, appendix B."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
