"""Copying against planted copies, brute force, and the Mann-Whitney test of scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from jaxtyping import TypeCheckError
from scipy.spatial.distance import cdist
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.memorisation import authenticity, copy_rate, data_copying
from ganlib.metrics.neighbours import nearest


def uniform(num_items: int, seed: int) -> Tensor:
    """Distances, whose distribution function is x."""
    return torch.rand(num_items, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(num_items: int, share: float, seed: int) -> Tensor:
    """Distances of samples, each of which is a copy with that chance."""
    return torch.where(uniform(num_items, seed) < share, 0.0, uniform(num_items, seed + 1))


def z_by_scipy(ours: Tensor, theirs: Tensor) -> float:
    tested = scipy.stats.mannwhitneyu(
        ours.numpy(), theirs.numpy(), alternative="greater", method="asymptotic", use_continuity=False
    )
    return float(scipy.stats.norm.isf(tested.pvalue))


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.1, 0.5])
def test_the_share_of_planted_copies_is_found_without_bias_and_the_interval_holds_it(share: float) -> None:
    found = [copy_rate(planted(1000, share, 3 * s), uniform(1500, 3 * s + 2)) for s in range(60)]
    values = torch.tensor([each.value for each in found])
    assert values.mean().item() == pytest.approx(share, abs=4 * math.sqrt(share / 1000 / 60) + 1e-4)
    assert values.std().item() < 1.5 * math.sqrt(share / 1000) + 1e-3
    assert sum(each.interval.low <= share <= each.interval.high for each in found) >= 56


def test_without_copies_the_lower_bound_is_almost_always_zero() -> None:
    found = [copy_rate(uniform(1000, 2 * s), uniform(1500, 2 * s + 1)) for s in range(100)]
    assert sum(each.interval.low > 0 for each in found) <= 5
    assert torch.tensor([each.value for each in found]).mean() < 2e-3


def test_the_copy_rate_is_its_formula() -> None:
    fake, held_out = uniform(300, 1) * 0.5, uniform(500, 2)
    found = copy_rate(fake, held_out, close_share=0.05)
    threshold = sorted(held_out.tolist())[24]  # the 25th of 500
    by_chance, close = 25 / 500, [distance <= threshold for distance in fake.tolist()]
    assert found.threshold == threshold and found.close.tolist() == close
    assert found.value == pytest.approx((sum(close) / 300 - by_chance) / (1 - by_chance))
    beta = scipy.stats.beta
    most, least = beta.ppf(0.975, sum(close) + 1, 300 - sum(close)), beta.ppf(0.025, sum(close), 301 - sum(close))
    chance_most, chance_least = beta.ppf(0.975, 26, 475), beta.ppf(0.025, 25, 476)
    assert found.interval.low == pytest.approx(max(0, (least - chance_most) / (1 - chance_most)))
    assert found.interval.high == pytest.approx((most - chance_least) / (1 - chance_least))


def test_of_few_held_out_items_the_nearest_sets_the_threshold_and_of_thousands_a_quantile() -> None:
    for num_items, rank in ((400, 1), (1999, 1), (2000, 2), (7500, 7)):
        held_out = uniform(num_items, 1)
        assert copy_rate(uniform(50, 2), held_out).threshold == held_out.sort().values[rank - 1]


def test_held_out_items_that_are_training_items_are_taken_off() -> None:
    """A fifth of the data is there twice: of the held-out items, and of what an honest generator draws, a fifth too."""
    honest = [copy_rate(planted(1000, 0.2, 3 * s), planted(1500, 0.2, 3 * s + 500)) for s in range(40)]
    assert sum(each.interval.low > 0 for each in honest) <= 2
    assert torch.tensor([each.value for each in honest]).mean() < 0.015
    copied = [copy_rate(planted(1000, 0.2 + 0.8 * 0.1, 3 * s), planted(1500, 0.2, 3 * s + 500)) for s in range(40)]
    assert torch.tensor([each.value for each in copied]).mean() == pytest.approx(0.1, abs=0.01)
    assert sum(each.interval.low <= 0.1 <= each.interval.high for each in copied) >= 37


def test_copies_are_pointed_out() -> None:
    rng = torch.Generator().manual_seed(1)
    train, fresh, held_out = (torch.randn(400, 8, generator=rng, dtype=torch.float64) for _ in range(3))
    fake = torch.cat([train[:30] + 1e-4, fresh[30:]])
    found = copy_rate(nearest(fake, train)[0][:, 0], nearest(held_out, train)[0][:, 0])
    assert found.close[:30].all() and found.close[30:].sum() <= 4


def test_everything_copied_is_a_share_of_one_unless_the_held_out_items_are_copies_too() -> None:
    assert copy_rate(torch.zeros(50), uniform(400, 1)).value == 1
    all_alike = copy_rate(torch.zeros(50), torch.zeros(400))
    assert all_alike.value == 0 and all_alike.interval.low == 0


def test_authenticity_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    train, fake = rng.normal(size=(60, 3)), rng.normal(size=(80, 3))
    fake[:10] = train[:10] + 1e-3
    across, within = cdist(fake, train), cdist(train, train) + np.diag(np.full(60, np.inf))
    expected = np.mean([across[i].min() > within[across[i].argmin()].min() for i in range(80)])
    distances, items = nearest(torch.from_numpy(fake), torch.from_numpy(train))
    spacing = nearest(torch.from_numpy(train), torch.from_numpy(train), exclude_self=True)[0][:, 0]
    assert authenticity(distances[:, 0], spacing[items[:, 0]]) == pytest.approx(expected)
    assert 0.1 < expected < 0.9
    assert authenticity(torch.ones(4), torch.ones(4)) == 0  # as near as a real item is not farther


@pytest.mark.parametrize("levels", [0, 7], ids=["all different", "ties"])
def test_data_copying_is_the_mean_of_the_z_of_scipy_over_the_cells(levels: int) -> None:
    ours, theirs = uniform(300, 1) ** 1.2, uniform(400, 2)
    if levels:
        ours, theirs = (ours * levels).floor(), (theirs * levels).floor()
    cells = torch.arange(300) % 3, torch.cat([torch.zeros(200), torch.ones(150), torch.full((50,), 2.0)]).long()
    scores = [z_by_scipy(ours[cells[0] == cell], theirs[cells[1] == cell]) for cell in range(3)]
    found = data_copying(ours, theirs, *cells)
    assert found is not None and found.cells == 3
    shares = np.array([200, 150, 50]) / 400
    assert found.value == pytest.approx(float(shares @ scores))
    assert found.interval.high - found.value == pytest.approx(1.96 * math.sqrt((shares**2).sum()))
    assert found.value - found.interval.low == pytest.approx(found.interval.high - found.value)


def test_data_copying_has_its_stated_variance_under_no_copying() -> None:
    cells = torch.arange(120) % 3, torch.cat([torch.zeros(100), torch.ones(60), torch.full((40,), 2.0)]).long()
    found = [data_copying(uniform(120, 2 * s), uniform(200, 2 * s + 1), *cells) for s in range(300)]
    values = torch.tensor([each.value for each in found if each is not None])
    assert len(values) == 300 and abs(values.mean()) < 4 * values.std() / math.sqrt(300)
    assert values.square().mean().item() == pytest.approx(0.5**2 + 0.3**2 + 0.2**2, rel=0.25)
    assert sum(each.interval.low <= 0 <= each.interval.high for each in found if each is not None) >= 276


def test_data_copying_falls_for_copies_and_rises_for_what_is_far_off() -> None:
    one = torch.zeros(200).long(), torch.zeros(300).long()
    copied, far = (data_copying(uniform(200, 1) * scale, uniform(300, 2), *one) for scale in (0.3, 3.0))
    assert copied is not None and copied.interval.high < -3
    assert far is not None and far.interval.low > 3


def test_cells_with_fewer_than_twenty_of_either_do_not_count() -> None:
    ours, theirs = uniform(200, 1), uniform(200, 2)
    cells = torch.zeros(200).long(), torch.zeros(200).long()
    cells[0][:19], cells[1][:60] = 1, 1  # too few samples
    cells[0][19:79], cells[1][60:79] = 2, 2  # too few held-out items
    cells[0][79:90] = 3  # no held-out items
    found = data_copying(ours, theirs, *cells)
    assert found is not None and found.cells == 1
    assert found.value == pytest.approx(z_by_scipy(ours[90:], theirs[79:]))
    assert data_copying(ours[:19], theirs, cells[0][:19] * 0, cells[1] * 0) is None
    assert data_copying(ours[:20], theirs, cells[0][:20] * 0, cells[1] * 0) is not None


def test_distances_that_are_all_equal_say_nothing() -> None:
    found = data_copying(torch.zeros(50), torch.zeros(50), torch.zeros(50).long(), torch.zeros(50).long())
    assert found is not None and found.value == 0


def test_distances_that_cannot_be_used_are_refused() -> None:
    good, cells = uniform(30, 1), torch.zeros(30).long()
    for bad in (torch.zeros(0), torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])):
        for pair in ((bad, good), (good, bad)):
            with pytest.raises(DataError, match="finite"):
                copy_rate(*pair)
    with pytest.raises((DataError, TypeCheckError)):
        authenticity(good, good[1:])
    with pytest.raises((DataError, TypeCheckError)):
        data_copying(good, good, cells[1:], cells)
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(UsageError, match="close_share"):
            copy_rate(good, good, close_share=share)
