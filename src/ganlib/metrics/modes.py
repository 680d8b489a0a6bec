"""Mixtures of Gaussians, whose modes can be counted: the oldest test of mode collapse."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DataError, UsageError


@dataclass(frozen=True)
class Modes:
    """How many modes have a good sample, the share of samples that are good, and how many good ones each mode has."""

    found: int
    share_within_3sd: float
    counts: tuple[int, ...]


def count_modes(points: Float[Tensor, "n d"], centres: Float[Tensor, "modes d"], standard_deviation: float) -> Modes:
    """A sample is good within 3 standard deviations of its nearest centre; a mode is found if it has a good sample.

    In two dimensions the data itself has a share of ``1 − exp(−9/2) = 0.989``. Points that are not finite are not
    good. Srivastava et al. 2017, arXiv:1705.07761; Lin et al. 2018, arXiv:1712.04086. DataError for other widths or
    no points.
    """
    if not standard_deviation > 0:
        raise UsageError(f"standard_deviation={standard_deviation}: accepted is a number above 0")
    if points.ndim != 2 or centres.ndim != 2 or points.shape[1] != centres.shape[1] or not len(points):
        raise DataError(
            f"points {tuple(points.shape)} and centres {tuple(centres.shape)}; accepted are (items, columns) and "
            "(modes, columns) with at least one point"
        )
    # By differences: the product form of cdist loses the small distances that are asked for here.
    distances = torch.cdist(
        points.double(), centres.to(points.device).double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    nearest, mode = distances.min(1)
    good = nearest <= 3 * standard_deviation
    counts = torch.bincount(mode[good], minlength=len(centres))
    return Modes(int((counts > 0).sum()), good.double().mean().item(), tuple(counts.tolist()))


def ring_of_gaussians(
    num_items: int, *, modes: int = 8, radius: float = 2.0, sd: float = 0.02, rng: torch.Generator
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "modes 2"]]:
    """Points of equally likely Gaussians on a circle, and the centres."""
    angles = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    centres = radius * torch.stack([angles.cos(), angles.sin()], 1)
    return _mixture(num_items, centres.float(), sd, rng), centres.float()


def grid_of_gaussians(
    num_items: int, *, side: int = 5, spacing: float = 2.0, sd: float = 0.05, rng: torch.Generator
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "modes 2"]]:
    """Points of equally likely Gaussians on a square grid around zero, and the centres."""
    ticks = (torch.arange(side) - (side - 1) / 2) * spacing
    centres = torch.cartesian_prod(ticks, ticks)
    return _mixture(num_items, centres, sd, rng), centres


def _mixture(
    num_items: int, centres: Float[Tensor, "modes d"], sd: float, rng: torch.Generator
) -> Float[Tensor, "n d"]:
    mode = torch.randint(len(centres), (num_items,), generator=rng, device=rng.device)
    noise = torch.randn(num_items, centres.shape[1], generator=rng, device=rng.device)
    return centres[mode.to(centres.device)] + sd * noise.to(centres.device)
