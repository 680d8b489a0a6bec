"""Attacks against explicit sums, the kernel estimate of scipy, and members that are known."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from jaxtyping import TypeCheckError
from scipy.spatial.distance import cdist
from torch import Tensor

from ganlib.errors import DataError
from ganlib.metrics.intervals import area_under_curve
from ganlib.metrics.membership import MAX_AXES, domias, gan_leaks, gan_leaks_calibrated, log_density


def normal(num_items: int, width: int, seed: int) -> Tensor:
    return torch.randn(num_items, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def skewed(num_items: int, seed: int) -> Tensor:
    """Items in three dimensions with unequal spreads, correlated and off the origin."""
    mixing = torch.tensor([[3.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.2, -0.4, 0.1]], dtype=torch.float64)
    return normal(num_items, 3, seed) @ mixing.T + torch.tensor([5.0, -2.0, 1.0])


def area(attack, members: Tensor, others: Tensor, *given: Tensor) -> float:
    return area_under_curve(attack(members, *given), attack(others, *given)).value


def test_gan_leaks_is_minus_the_smallest_distance() -> None:
    items, fake = normal(30, 4, 1), normal(50, 4, 2)
    np.testing.assert_allclose(gan_leaks(items, fake), -cdist(items, fake).min(1), atol=1e-12)


@pytest.mark.parametrize(("num_fake", "num_reference"), [(50, 40), (40, 50)])
def test_the_calibrated_attack_compares_equal_numbers_by_brute_force(num_fake: int, num_reference: int) -> None:
    items, fake, reference = normal(30, 4, 1), normal(num_fake, 4, 2), normal(num_reference, 4, 3)
    expected = cdist(items, reference[:40]).min(1) - cdist(items, fake[:40]).min(1)
    np.testing.assert_allclose(gan_leaks_calibrated(items, fake, reference), expected, atol=1e-12)


def test_log_density_of_white_kernels_is_that_of_scipy_up_to_a_constant() -> None:
    """scipy shapes its kernels by the covariance of the data, so the data are made exactly white."""
    raw = skewed(80, 1)
    raw = raw - raw.mean(0)
    kernels = torch.linalg.solve_triangular(torch.linalg.cholesky(raw.T.cov()), raw.T, upper=False).T
    points = normal(40, 3, 2)
    estimate = scipy.stats.gaussian_kde(kernels.T.numpy())  # with Scott's bandwidth
    offset = log_density(points, kernels).numpy() - estimate.logpdf(points.T.numpy())
    bandwidth = 80 ** (-1 / 7)
    np.testing.assert_allclose(offset, 3 / 2 * math.log(2 * math.pi) + 3 * math.log(bandwidth), atol=1e-9)


def test_log_density_far_from_every_kernel_is_finite_and_blocks_change_nothing() -> None:
    assert log_density(torch.full((1, 2), 1e4).double(), normal(9, 2, 1)).isfinite().all()
    points, kernels = normal(5000, 2, 1), normal(20, 2, 2)
    whole, end = log_density(points, kernels), log_density(points[4090:], kernels)
    np.testing.assert_allclose(whole[4090:], end, atol=1e-9)


def test_domias_is_the_ratio_of_explicit_sums_of_kernels_shaped_by_the_reference() -> None:
    items, fake, reference = skewed(25, 1), skewed(70, 2) * 1.1, skewed(60, 3)
    shape = np.cov(reference.numpy().T) * 60 ** (-2 / 7)

    def log_sum(kernels: Tensor) -> np.ndarray:
        pairs = [[scipy.stats.multivariate_normal.logpdf(x, k, shape) for k in kernels.numpy()] for x in items.numpy()]
        return np.log(np.exp(np.array(pairs)).sum(1))

    expected = log_sum(fake[:60]) - log_sum(reference)
    np.testing.assert_allclose(domias(items, fake, reference), expected, atol=1e-8)
    by_scipy = scipy.stats.gaussian_kde(reference.T.numpy()).logpdf(items.T.numpy())
    np.testing.assert_allclose(log_sum(reference) - math.log(60), by_scipy, atol=1e-8)


def test_domias_does_not_depend_on_the_units_or_the_axes() -> None:
    parts = skewed(25, 1), skewed(60, 2), skewed(60, 3)
    mixing = torch.linalg.qr(normal(3, 3, 4)).Q @ torch.tensor([1e3, 1.0, 1e-2]).double().diag()
    moved = [part @ mixing + 7 for part in parts]
    np.testing.assert_allclose(domias(*moved), domias(*parts), atol=1e-6)


def test_domias_looks_at_the_widest_axes_of_the_reference_alone() -> None:
    spread = torch.cat([torch.linspace(5, 1, MAX_AXES), torch.full((8,), 1e-3)]).double()
    axes = torch.linalg.qr(normal(MAX_AXES + 8, MAX_AXES + 8, 1)).Q
    items, fake, reference = (
        normal(count, MAX_AXES + 8, seed) * spread for count, seed in ((30, 2), (400, 3), (400, 4))
    )
    noisy = items + torch.cat([torch.zeros(MAX_AXES), torch.full((8,), 1e-3)])
    plain = domias(items @ axes, fake @ axes, reference @ axes)
    assert plain.std() > 0.1
    np.testing.assert_allclose(domias(noisy @ axes, fake @ axes, reference @ axes), plain, atol=1e-2)


@pytest.mark.parametrize("attack", [gan_leaks, gan_leaks_calibrated, domias])
def test_members_are_found_where_samples_are_training_items_and_not_where_they_are_fresh(attack) -> None:
    """Items vary in how crowded their surroundings are."""
    copied, fresh = [], []
    for seed in range(5):
        train, others, new, reference = (normal(300, 6, 4 * seed + part) for part in range(4))
        given = (reference,) if attack is not gan_leaks else ()
        copied.append(area(attack, train, others, train + 0.01 * normal(300, 6, seed + 50), *given))
        fresh.append(area(attack, train, others, new, *given))
    assert min(copied) > (0.8 if attack is domias else 0.99)
    assert np.mean(fresh) == pytest.approx(0.5, abs=4 * 0.024 / math.sqrt(5)) and max(fresh) < 0.6


def test_calibration_helps_where_some_items_are_near_to_everything() -> None:
    """Half of the items lie in a narrow cluster, where the nearest sample is near without any copying."""

    def clustered(seed: int) -> Tensor:
        return normal(400, 6, seed) * torch.where(torch.arange(400) % 2 == 0, 0.05, 1.0)[:, None]

    for seed in range(0, 20, 4):
        train, others, reference = (clustered(seed + part) for part in range(3))
        fake = train + 0.4 * clustered(seed + 3)
        plain = area(gan_leaks, train, others, fake)
        assert area(gan_leaks_calibrated, train, others, fake, reference) > plain + 0.03


def test_features_that_cannot_be_used_are_refused() -> None:
    items, other = normal(10, 3, 1), normal(10, 4, 2)
    with pytest.raises((DataError, TypeCheckError)):
        domias(items, items, other)
    with pytest.raises(DataError, match="2 reference items"):
        domias(items, items, items[:2])
    with pytest.raises(DataError, match="2 fake items"):
        domias(items, items[:2], items)
    with pytest.raises(DataError, match="all equal"):
        domias(items, items, torch.ones(10, 3).double())
    with pytest.raises(DataError, match="row 4"):
        domias(items, items, items.index_fill(0, torch.tensor([4]), math.nan))
