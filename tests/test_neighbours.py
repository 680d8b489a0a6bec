"""Neighbours against differences in numpy: ties, copies, large offsets, and data made to defeat the fast search."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics import neighbours
from ganlib.metrics.neighbours import nearest, squared_distances, squared_radii


def normal(num_items: int, width: int, seed: int) -> Tensor:
    return torch.randn(num_items, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_distances(queries: Tensor, points: Tensor) -> np.ndarray:
    return np.linalg.norm(queries.double().numpy()[:, None] - points.double().numpy()[None], axis=2)


def agrees(queries: Tensor, points: Tensor, *, k: int, exclude_self: bool = False, block_items: int = 2048) -> None:
    distances, indices = nearest(queries, points, k=k, exclude_self=exclude_self, block_items=block_items)
    table = all_distances(queries, points)
    if exclude_self:
        np.fill_diagonal(table, math.inf)
    expected = np.sort(table, axis=1)[:, :k]
    assert distances.numpy() == pytest.approx(expected, rel=1e-12, abs=0)
    assert np.take_along_axis(table, indices.numpy(), 1) == pytest.approx(expected, rel=1e-12, abs=0)
    assert all(len(set(row)) == k for row in indices.tolist())  # no point twice


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("block_items", [1, 7, 2048])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_nearest_is_that_of_all_differences(k: int, block_items: int, offset: float) -> None:
    points = normal(60, 5, 1) + offset
    agrees(normal(41, 5, 2) + offset, points, k=k, block_items=block_items)
    agrees(points, points, k=k, exclude_self=True, block_items=block_items)


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_nearest_bears_any_scale(scale: float) -> None:
    points = normal(50, 3, 1) * scale
    agrees(normal(20, 3, 2) * scale, points, k=2)
    agrees(points, points, k=2, exclude_self=True)


@given(seed=st.integers(0, 10_000), distinct=st.integers(1, 8), offset=st.sampled_from([0.0, 1000.0]))
@settings(max_examples=25, deadline=None)
def test_nearest_of_copies_is_at_zero(seed: int, distinct: int, offset: float) -> None:
    """Few points many times: more ties than candidates."""
    rng = torch.Generator().manual_seed(seed)
    base = torch.randint(-3, 4, (distinct, 4), generator=rng).double() / 3 + offset
    points, queries = (base[torch.randint(distinct, (40,), generator=rng)] for _ in range(2))
    agrees(queries, points, k=3, block_items=8)
    agrees(points, points, k=3, exclude_self=True, block_items=8)


@pytest.mark.parametrize("spread", [1e-5, 1e-9, 1e-13])
def test_nearest_is_exact_in_a_crowd_that_rounding_hides(spread: float) -> None:
    """Tight clusters far apart: within one, single precision, and at 1e-9 double too, cannot tell who is near."""
    centres = normal(3, 6, 1) * 10
    which = torch.randint(3, (90,), generator=torch.Generator().manual_seed(2))
    points = centres[which] + spread * normal(90, 6, 3)
    queries = torch.cat([points[40:50], centres + spread * normal(3, 6, 4)])
    agrees(queries, points, k=1)
    agrees(points, points, k=2, exclude_self=True, block_items=16)
    assert nearest(queries, points)[0][:10].tolist() == [[0.0]] * 10
    assert nearest(queries, points)[1][:10, 0].tolist() == list(range(40, 50))


def test_nearest_does_not_trust_products_of_eight_bits() -> None:
    """Where the user lets torch round products to bfloat16, the search must not go by them."""
    points = normal(200, 32, 1)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert neighbours._search_types(points) == (torch.float64,)
        agrees(normal(30, 32, 2), points, k=3)
    finally:
        torch.set_float32_matmul_precision(before)
    assert neighbours._search_types(points) == (torch.float32, torch.float64)


def test_the_fast_search_settles_ordinary_data_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("searched by differences")

    monkeypatch.setattr(neighbours, "_by_differences", refuse)
    monkeypatch.setattr(neighbours, "_search_types", lambda _: (torch.float32,))
    points = normal(3000, 64, 1)
    agrees(torch.cat([normal(100, 64, 2), points[:20]]), points, k=5)


def test_squared_radii_are_the_squared_distances_to_the_kth_other() -> None:
    points = normal(50, 4, 1)
    table = all_distances(points, points)
    np.fill_diagonal(table, math.inf)
    assert squared_radii(points, 3, 16).numpy() == pytest.approx(np.sort(table, 1)[:, 2] ** 2, rel=1e-9)
    plain = squared_distances(points, points + 1)
    assert plain.numpy() == pytest.approx(all_distances(points, points + 1) ** 2, rel=1e-9)


def test_nearest_of_no_queries_is_empty() -> None:
    distances, indices = nearest(normal(0, 3, 1), normal(5, 3, 1), k=2)
    assert distances.shape == indices.shape == (0, 2)


def test_unusable_questions_are_refused() -> None:
    points = normal(5, 3, 1)
    with pytest.raises(DataError, match="5 point items; this score needs at least 6"):
        nearest(points, points, k=6)
    with pytest.raises(DataError, match="at least 6"):
        nearest(points, points, k=5, exclude_self=True)
    with pytest.raises(UsageError, match="4 queries and 5 points"):
        nearest(points[:4], points, exclude_self=True)
    with pytest.raises((DataError, TypeCheckError)):
        nearest(points[:, :2], points)
    with pytest.raises(DataError, match="query features: row 1 is not finite"):
        nearest(torch.tensor([[0.0], [math.nan]]), points[:, :1])
    with pytest.raises(UsageError, match="k=0"):
        nearest(points, points, k=0)
