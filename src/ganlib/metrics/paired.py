"""How far pictures are from the ones that were wanted: pixel by pixel, by structure, and by features.

All take pictures in [-1, 1] and give a number for each; round them first (:func:`ganlib.metrics.features.quantise`).
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ganlib.errors import DataError

Pictures = Float[Tensor, "batch channels height width"]
Numbers = Float[Tensor, " batch"]
Maps = Callable[[Tensor], Sequence[Tensor]]


def signal_to_noise(made: Pictures, wanted: Pictures) -> Numbers:
    """10 log₁₀(2² / mean squared error), in dB; 100 dB where a picture is the wanted one."""
    errors = (made - wanted).double().square().flatten(1).mean(1)
    return 10 * torch.log10(4 / errors.clamp(min=4e-10))


def structural_similarity(made: Pictures, wanted: Pictures, window: int = 11, sigma: float = 1.5) -> Numbers:
    """The mean over places and channels of (2 μ μ' + c₁)(2 σ' + c₂) / ((μ² + μ'² + c₁)(σ² + σ'² + c₂)), up to 1.

    Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 13(4). Means
    and variances are under a Gaussian window that lies within the picture, c₁ = (0.01 · 2)², c₂ = (0.03 · 2)². Raises
    :class:`DataError` for a side that is smaller than the window.
    """
    channels, *sides = made.shape[1:]
    if min(sides) < window:
        raise DataError(f"pictures of {sides[0]} x {sides[1]}; structural similarity needs at least {window} pixels")
    places = torch.arange(window, dtype=torch.float64, device=made.device) - (window - 1) / 2
    weights = torch.exp(-places.square() / (2 * sigma**2))
    weights = weights / weights.sum()

    def mean(items: Tensor) -> Tensor:
        across = F.conv2d(items, weights.expand(channels, 1, 1, -1), groups=channels)
        return F.conv2d(across, weights[:, None].expand(channels, 1, -1, 1), groups=channels)

    x, y = made.double(), wanted.double()
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x.square(), mean(y * y) - mean_y.square()
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).flatten(1).mean(1)


def map_distance(maps: Maps, made: Pictures, wanted: Pictures) -> Numbers:
    """Σ over depths of the mean over places of ‖f/‖f‖ - f'/‖f'‖‖², f the feature vectors of a place.

    The form of LPIPS (Zhang et al. 2018, arXiv:1801.03924, equation 1) with weights of one, on any feature maps:
    comparable only for the same ones.
    """
    total = torch.zeros(len(made), dtype=torch.float64, device=made.device)
    for a, b in zip(maps(made), maps(wanted), strict=True):
        apart = (F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).square().sum(1)
        total = total + apart.flatten(1).mean(1)
    return total


def content_kept(maps: Maps, given: Pictures, made: Pictures) -> Bool[Tensor, " batch"]:
    """Whether each made picture is nearer to the one that it was made of than to all others of the batch.

    For translations without partners: what of the content can still be recognised, without labels. The distance is the
    mean squared difference of maps, each channel with mean 0 and variance 1 over its places, which takes away much of
    what a style is (Huang & Belongie 2017, arXiv:1703.06868), added over depths. Of a batch of n, chance is 1/n.
    """
    total = torch.zeros(len(made), len(given), dtype=torch.float64, device=made.device)
    for a, b in zip(maps(made), maps(given), strict=True):
        if math.prod(a.shape[2:]) > 1:
            rows, columns = (F.instance_norm(part.double()).flatten(1) for part in (a, b))
            total = total + torch.cdist(rows, columns).square() / rows.shape[1]
    return total.argmin(1) == torch.arange(len(made), device=made.device)
