"""Diversity against closed forms and planted failures: modes removed, few points repeated, a known support."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.diversity import (
    LLOYD_STEPS,
    Support,
    _cells,
    _settled,
    _spread_out,
    colliding_pairs,
    different_cells,
    duplicates,
    support_size,
    vendi_score,
)


def normal(num_items: int, width: int, seed: int) -> Tensor:
    return torch.randn(num_items, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clusters(num_items: int, num_clusters: int, seed: int) -> Tensor:
    """20 clusters, of which only the first so many are drawn."""
    which = torch.randint(num_clusters, (num_items,), generator=torch.Generator().manual_seed(seed))
    return (4 * normal(20, 8, 1))[which] + normal(num_items, 8, seed)


def test_vendi_counts_what_is_wholly_different() -> None:
    axes = torch.linalg.qr(normal(6, 6, 1)).Q
    assert vendi_score(3 * axes) == pytest.approx(6)
    assert vendi_score(axes[:1].repeat(9, 1) * torch.arange(1.0, 10)[:, None]) == pytest.approx(1)
    uneven = axes[[0, 0, 0, 0, 1, 1, 2, 2]]  # shares 1/2, 1/4, 1/4: an entropy of 1.5 bits
    assert vendi_score(uneven) == pytest.approx(2**1.5)
    assert vendi_score(uneven.repeat(5, 1)) == pytest.approx(2**1.5)


@pytest.mark.parametrize(("num_items", "width"), [(30, 7), (7, 30), (12, 12)])
def test_vendi_is_the_entropy_of_the_kernel_matrix(num_items: int, width: int) -> None:
    features = normal(num_items, width, 1) + 1
    cosine = np.corrcoef(np.c_[features.numpy(), -features.numpy()])  # of rows whose mean is zero
    eigenvalues = np.linalg.eigvalsh(cosine / num_items)
    eigenvalues = eigenvalues[eigenvalues > 1e-15]
    assert vendi_score(features) == pytest.approx(math.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def test_cells_are_those_of_another_k_means_from_the_same_start(rng: torch.Generator) -> None:
    items = normal(400, 3, 1)
    start = _spread_out(items, 9, rng)
    theirs: Any = KMeans(9, init=start.numpy(), n_init=1, max_iter=LLOYD_STEPS, tol=0)  # pyright: ignore
    theirs.fit(items.numpy())
    ours = _settled(items, start)
    assert ours.numpy() == pytest.approx(theirs.cluster_centers_, abs=1e-9)
    assert _cells(items, ours)[0].tolist() == theirs.labels_.tolist()


def test_the_start_prefers_distant_items() -> None:
    """Two clumps of 99 and 1: by equal chances both would be drawn in 1 of 50 starts."""
    items = torch.cat([normal(99, 2, 1), torch.full((1, 2), 1000.0).double()])
    starts = [_spread_out(items, 2, torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert sum(bool((start.max() > 900).item()) for start in starts) >= 39


def test_a_cell_left_empty_is_given_the_farthest_item() -> None:
    items = torch.tensor([[5.0], [6.0], [15.0]]).double()
    assert sorted(_settled(items, torch.tensor([[5.4], [5000.0]]).double())[:, 0].tolist()) == [5.5, 15]


def two_points(first: int, second: int) -> Tensor:
    return torch.tensor([0.0, 100.0]).double().repeat_interleave(torch.tensor([first, second]))[:, None]


def test_planted_shares_give_the_z_of_the_formula(rng: torch.Generator) -> None:
    """Two far points: 600 and 400 of 1000 reals, half of which are counted; 30 and 170 of 200 fakes."""
    found = different_cells(two_points(600, 400), two_points(30, 170), num_cells=2, rng=rng)
    first = int(found.real_cells[0])
    share = found.real_shares[first].item()
    assert share * 500 == pytest.approx(round(share * 500)) and 0.5 < share < 0.7
    pooled = (share * 500 + 30) / 700
    z = (0.15 - share) / math.sqrt(pooled * (1 - pooled) * (1 / 500 + 1 / 200))
    assert found.z[first].item() == pytest.approx(z) and found.z[1 - first].item() == pytest.approx(-z)
    assert found.share == 1 and found.differs.all()
    assert found.fake_shares[first].item() == pytest.approx(0.15)
    assert (found.fake_cells == first).sum() == 30 and (found.real_cells == first).sum() == 600


def test_the_significance_is_that_of_the_test_of_one_cell() -> None:
    """Two points as likely in both: each seed is a test of its own."""
    for significance in (0.05, 0.3):
        shares = []
        for seed in range(200):
            rng = torch.Generator().manual_seed(seed)
            drawn = 100.0 * torch.randint(2, (400, 1), generator=rng).double()
            other = 100.0 * torch.randint(2, (400, 1), generator=rng).double()
            found = different_cells(drawn, other, num_cells=2, significance=significance, rng=rng)
            shares.append(found.share)
        assert abs(sum(shares) / 200 - significance) < 3.5 * math.sqrt(significance / 200)


def test_missed_and_repeated_clusters_differ_and_fresh_items_do_not() -> None:
    real = clusters(4000, 20, 2)
    runs = [
        different_cells(real, fake, num_cells=40, rng=torch.Generator().manual_seed(5))
        for fake in (clusters(4000, 20, 3), clusters(4000, 10, 4), clusters(40, 20, 5).repeat(100, 1))
    ]
    fresh, halved, few = runs
    assert fresh.share < 0.2 and halved.share > 0.9 and few.share > 0.6
    missed = halved.z < -1.96
    lost = halved.real_cells[torch.cdist(real, (4 * normal(20, 8, 1))).argmin(1) >= 10]
    assert missed[lost].double().mean() > 0.95  # it says which region is missed
    again = different_cells(real, clusters(4000, 20, 3), num_cells=40, rng=torch.Generator().manual_seed(5))
    assert torch.equal(again.real_cells, fresh.real_cells) and again.share == fresh.share


@pytest.mark.parametrize("width", [2, 256])
def test_cells_of_one_distribution_differ_as_often_as_chance(width: int) -> None:
    """Also of many features, where the items that made the cells fill them unlike others."""
    shares = []
    for seed in range(12):
        rng = torch.Generator().manual_seed(seed)
        real, fake = normal(800, width, seed), normal(800, width, 100 + seed)
        shares.append(different_cells(real, fake, num_cells=20, rng=rng).share)
    assert 0.01 < sum(shares) / 12 < 0.1


def test_duplicates_are_the_planted_ones() -> None:
    training, samples = normal(400, 16, 1), normal(300, 16, 2)
    assert duplicates(samples, training).share == 0
    samples[10:40] = samples[100:130] + 1e-3 * normal(30, 16, 3)
    found = duplicates(samples, training)
    assert found.share == pytest.approx(60 / 300)
    assert found.indices[10:40].tolist() == list(range(100, 130))
    table = torch.cdist(training, training).fill_diagonal_(math.inf)
    assert found.threshold == pytest.approx(0.1 * table.min(1).values.median().item())
    assert duplicates(samples[:50].repeat(6, 1), training).share == 1
    with pytest.raises(DataError, match="half of the rows have a copy"):
        duplicates(samples, training[:5].repeat(9, 1))


def test_colliding_pairs_are_those_of_all_differences() -> None:
    samples = normal(60, 2, 1) + 1e4
    differences = np.linalg.norm(samples.numpy()[:, None] - samples.numpy()[None], axis=2)
    expected = int((differences[np.triu_indices(60, 1)] < 0.5).sum())
    assert expected > 20
    for block_items in (2048, 7, 30):
        assert colliding_pairs(samples, 0.5, block_items=block_items) == expected


def test_support_is_found_as_often_as_the_interval_says() -> None:
    """400 equally likely points; from 100 to 1000 samples."""
    points = normal(400, 3, 1)
    for num_samples in (100, 1000):
        found = []
        for seed in range(60):
            which = torch.randint(400, (num_samples,), generator=torch.Generator().manual_seed(seed))
            found.append(support_size(colliding_pairs(points[which], 1e-6), num_samples))
        assert sum(each.low <= 400 <= (each.high or math.inf) for each in found) >= 54
        middle = sorted(each.estimate or math.inf for each in found)[30]
        assert middle == pytest.approx(400, rel=0.15)


def test_support_without_a_collision_is_only_a_bound() -> None:
    none = support_size(0, 100)
    assert none.estimate is None and none.high is None
    assert math.exp(-4950 / none.low) == pytest.approx(0.05)  # the chance of no collision there
    assert str(none) == "at least 1.65e+03"
    assert str(support_size(10, 101)) == "505 [275, 1.05e+03]"
    assert support_size(4950, 100).estimate == 1 and support_size(4950, 100).low == 1
    assert Support(5.0, 1.0, 9.0) == Support(5.0, 1.0, 9.0)


def test_impossible_questions_are_refused(rng: torch.Generator) -> None:
    with pytest.raises(DataError, match="row 2 is all zeros"):
        vendi_score(torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
    with pytest.raises(DataError, match="30 fake items; this score needs at least 50"):
        different_cells(normal(60, 2, 1), normal(30, 2, 2), num_cells=10, rng=rng)
    with pytest.raises(DataError, match="90 real items; this score needs at least 100"):
        different_cells(normal(90, 2, 1), normal(60, 2, 2), num_cells=10, rng=rng)
    with pytest.raises(DataError, match="3 different real items for 10 cells"):
        different_cells(normal(3, 2, 1).repeat(40, 1), normal(60, 2, 2), num_cells=10, rng=rng)
    with pytest.raises(UsageError, match="num_cells=1"):
        different_cells(normal(60, 2, 1), normal(60, 2, 2), num_cells=1, rng=rng)
    with pytest.raises(UsageError, match="colliding_pairs=2"):
        support_size(2, 2)
