"""Could an outsider tell who was in the training data? Attacks that score items, high for a member.

Each takes features and returns one score per item; what an attack achieves is the area under the curve and the share of
members found while one non-member in a hundred is accused (Carlini et al. 2022, arXiv:2112.03570).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DataError
from ganlib.metrics.checks import checked
from ganlib.metrics.neighbours import blocks, nearest

MAX_AXES = 32
"""Density estimates use at most so many principal axes of the reference items."""


def gan_leaks(items: Float[Tensor, "n d"], fake: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Minus the distance to the nearest sample. Chen et al. 2020, arXiv:1909.03935, the black-box attack."""
    return -nearest(items, fake)[0][:, 0]


def gan_leaks_calibrated(
    items: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], reference: Float[Tensor, "r d"]
) -> Float[Tensor, " n"]:
    """How much nearer the samples come than real items that are no members: some items are near to everything.

    ``min_r d(x, r) − min_s d(x, s)``, with as many samples as reference items: the minimum over more is smaller.
    The attack calibration of Chen et al. 2020, arXiv:1909.03935, with real items in place of a reference generator's
    samples.
    """
    count = min(len(fake), len(reference))
    return nearest(items, reference[:count])[0][:, 0] - nearest(items, fake[:count])[0][:, 0]


def domias(
    items: Float[Tensor, "n d"], fake: Float[Tensor, "m d"], reference: Float[Tensor, "r d"]
) -> Float[Tensor, " n"]:
    """``log p_s(x) − log p_r(x)``: where the samples are denser than the population, the generator has overfitted.

    Gaussian kernel estimates with Scott's bandwidth on at most 32 whitened principal axes of the reference. van Breugel
    et al. 2023, arXiv:2302.12580. Both estimates have the same kernels, shaped by the reference, and as many of them.
    DataError for fewer than 3 samples or reference items, or for unusable features.
    """
    items = checked(items, "item")
    fake, reference = checked(fake, "fake", min_items=3), checked(reference, "reference", min_items=3)
    widths = {part.shape[1] for part in (items, fake, reference)}
    if len(widths) > 1:
        raise DataError(f"features are {sorted(widths)} wide; compute all with the same extractor")
    count = min(len(fake), len(reference))
    fake, reference = fake[:count], reference[:count]
    centre = reference.mean(0)
    _, spread, axes = torch.linalg.svd(reference - centre, full_matrices=False)
    kept = min(MAX_AXES, int((spread > 1e-9 * spread[0]).sum()))
    if not kept:
        raise DataError("the reference items are all equal; densities need items that differ")
    project = axes[:kept].T * (math.sqrt(len(reference) - 1) / spread[:kept])
    points = (items - centre) @ project
    return log_density(points, (fake - centre) @ project) - log_density(points, (reference - centre) @ project)


def log_density(points: Float[Tensor, "n d"], kernels: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """The logarithm of a Gaussian kernel estimate, up to a constant of its width: bandwidth ``m^(−1/(d+4))``."""
    bandwidth = len(kernels) ** (-1 / (kernels.shape[1] + 4))
    made = []
    for rows in blocks(len(points), 2048):
        squared = torch.cdist(points[rows], kernels).square()
        made.append(torch.logsumexp(-squared / (2 * bandwidth**2), 1) - math.log(len(kernels)))
    return torch.cat(made)
