"""Who is near whom: Euclidean neighbours in blocks, so that memory does not grow with the number of items."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.checks import checked

SPARE = 8
"""Candidates kept beyond the k that are asked for, so that rounding in the search seldom hides a neighbour."""

GATHERED = 1 << 22
"""Numbers held at once while candidates are compared by differences: 32 MB."""


def nearest(
    queries: Float[Tensor, "n d"],
    points: Float[Tensor, "m d"],
    *,
    k: int = 1,
    exclude_self: bool = False,
    block_items: int = 2048,
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """The distances to the k nearest points of each query, smallest first, and the row numbers of those points.

    Exact: candidates are found by products in low precision, their distances are computed by differences in float64,
    and a query whose candidates the rounding bound cannot vouch for is searched again, at last by differences alone.
    A copy is at distance 0. Which of several points at one distance is given is not defined.
    `exclude_self` says that both are the same items in one order, and that none is its own neighbour.
    DataError for unusable features or too few points; UsageError for `exclude_self` with different numbers of items.
    """
    if k < 1 or block_items < 1:
        raise UsageError(f"k={k}, block_items={block_items}: both must be at least 1")
    queries, points = checked(queries, "query", min_items=0), checked(points, "point", min_items=k + exclude_self)
    if queries.shape[1] != points.shape[1]:
        raise DataError(f"queries have a width of {queries.shape[1]}, points of {points.shape[1]}; accepted are equal")
    if exclude_self and len(queries) != len(points):
        raise UsageError(
            f"exclude_self with {len(queries)} queries and {len(points)} points; give the same items twice"
        )
    distances = queries.new_zeros(len(queries), k)
    indices = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
    rows = torch.arange(len(queries), device=queries.device)
    for dtype in _search_types(queries):
        if len(rows):
            searched = _by_products(queries, points, rows, k, exclude_self, block_items, dtype)
            distances[rows], indices[rows], certain = searched
            rows = rows[~certain]
    if len(rows):
        distances[rows], indices[rows] = _by_differences(queries, points, rows, k, exclude_self)
    return distances, indices


def blocks(num_items: int, block_items: int) -> list[slice]:
    """The slices that cut so many items into blocks; the last may be smaller."""
    return [slice(start, min(start + block_items, num_items)) for start in range(0, num_items, block_items)]


def squared_distances(
    a: Float[Tensor, "rows d"], b: Float[Tensor, "columns d"], *, margin: float = 0.0
) -> Float[Tensor, "rows columns"]:
    """All pairs, by one matrix product, less a share `margin` of the squared norms.

    Without the margin the ties between copies, whose distances are equal or zero, fall either way by rounding, and
    differently for each block size. With it, distances below a millionth of the norms count as zero.
    """
    norms = a.square().sum(1)[:, None] + b.square().sum(1)
    return norms.mul_(1 - margin).sub_(a @ b.T, alpha=2).clamp_(min=0)


def squared_radii(points: Float[Tensor, "n d"], k: int, block_items: int) -> Float[Tensor, " n"]:
    """The squared distance of each point to its k-th neighbour, itself not counted, in the product form."""
    radii = []
    cuts = blocks(len(points), block_items)
    for rows in cuts:
        best = points.new_full((rows.stop - rows.start, k), math.inf)
        for columns in cuts:
            distance = squared_distances(points[rows], points[columns])
            if rows == columns:
                distance.fill_diagonal_(math.inf)
            best = torch.cat([best, distance], 1).topk(k, largest=False).values
        radii.append(best[:, -1])
    return torch.cat(radii)


def _search_types(features: Tensor) -> tuple[torch.dtype, ...]:
    """Single precision first, but only where a product of such numbers is not rounded further still."""
    plain = features.device.type == "cpu" and torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")  # pyright: ignore[reportAttributeAccessIssue]
    return (torch.float32, torch.float64) if plain else (torch.float64,)


def _by_products(
    queries: Tensor, points: Tensor, rows: Tensor, k: int, exclude_self: bool, block_items: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Distances and indices for the queries numbered `rows`, and for which of them they are proven right.

    Ranked by ``|p|² − 2 q·p``. With unit roundoff u the error is below ``(d + 8) u (|q|² + |p|²)`` (Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", section 3.1). A point left out that is nearer than the k-th
    distance D has a norm of at most ``|q| + D``; where even that one would have been a candidate, none was missed.
    """
    origin = points.mean(0)
    # Squares of single-precision numbers must neither overflow nor vanish.
    scale = float(max((points - origin).abs().max(), (queries - origin).abs().max())) or 1.0
    placed = (points - origin).div_(scale).to(dtype)
    norms = placed.double().square().sum(1).to(dtype)
    num_kept = min(k + SPARE, len(points) - exclude_self)
    rounding = (queries.shape[1] + 8) * torch.finfo(dtype).eps / 2
    floor = queries.shape[1] * torch.finfo(dtype).tiny
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for cut in blocks(len(rows), block_items):
        own = rows[cut]
        asked = (queries[own] - origin).div_(scale).to(dtype)
        best = asked.new_full((len(own), 0), math.inf)
        which = own.new_zeros((len(own), 0))
        for columns in blocks(len(points), 4 * block_items):
            near = torch.addmm(norms[columns], asked, placed[columns].T, alpha=-2)
            if exclude_self:
                inside = (own >= columns.start) & (own < columns.stop)
                near[inside, own[inside] - columns.start] = math.inf
            found = near.topk(min(num_kept, near.shape[1]), largest=False, sorted=False)
            best, which = torch.cat([best, found.values], 1), torch.cat([which, found.indices + columns.start], 1)
            best, chosen = best.topk(min(num_kept, best.shape[1]), largest=False)
            which = which.gather(1, chosen)
        distances, indices = _ranked(queries[own], points, which, k)
        lengths = asked.double().norm(dim=1)
        reach = distances[:, -1] / scale
        bound = rounding * (lengths.square() + (lengths + reach).square()) + floor
        certain = best[:, -1].double() + lengths.square() >= reach.square() + bound
        # A distance of zero cannot be beaten, and nothing was left out where all points are candidates.
        certain |= (reach == 0) | (num_kept == len(points) - exclude_self)
        parts.append((distances, indices, certain))
    distances, indices, certain = zip(*parts, strict=True)
    return torch.cat(distances), torch.cat(indices), torch.cat(certain)


def _ranked(
    queries: Float[Tensor, "n d"], points: Float[Tensor, "m d"], candidates: Int64[Tensor, "n c"], k: int
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """The k nearest of the candidates, by differences."""
    step = max(1, GATHERED // (candidates.shape[1] * points.shape[1]))
    distances = [
        (points[candidates[cut]] - queries[cut, None]).square_().sum(2).sqrt_() for cut in blocks(len(queries), step)
    ]
    best = torch.cat(distances).topk(k, largest=False)
    return best.values, candidates.gather(1, best.indices)


def _by_differences(queries: Tensor, points: Tensor, rows: Tensor, k: int, exclude_self: bool) -> tuple[Tensor, Tensor]:
    """The same without products, hundreds of times slower."""
    parts = []
    for cut in blocks(len(rows), max(1, GATHERED // len(points))):
        own = rows[cut]
        distance = torch.cdist(queries[own], points, compute_mode="donot_use_mm_for_euclid_dist")
        if exclude_self:
            distance[torch.arange(len(own), device=own.device), own] = math.inf
        parts.append(distance.topk(k, largest=False))
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
