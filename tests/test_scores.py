"""Scores against closed forms, against references written from the papers, and against planted failures."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from sklearn.metrics import pairwise_distances
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ganlib.errors import DataError, UsageError
from ganlib.metrics import scores as scores_module
from ganlib.metrics.modes import count_modes, grid_of_gaussians, ring_of_gaussians
from ganlib.metrics.report import PROTOCOL_KEYS, Score, Yardstick, yardstick
from ganlib.metrics.scores import KernelDistance, Neighbourhood, frechet_distance, kernel_distance, neighbourhood

PROTOCOL = {
    "extractor": "columns",
    "extractor_digest": "0" * 64,
    "reference": "train",
    "seed": 3,
    "quantisation": "8 bits",
    "truncation": 1.0,
    "version": "0.1.0",
}


def normal(num_items: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(num_items, width, generator=rng, dtype=torch.float64) + shift


def covariance(width: int, seed: int) -> Tensor:
    factor = normal(2 * width, width, seed)
    return factor.T @ factor / (2 * width)


def with_moments(num_items: int, mean: Tensor, cov: Tensor, seed: int) -> Tensor:
    """A sample whose mean and covariance are exactly those given."""
    raw = normal(num_items, len(mean), seed)
    raw = raw - raw.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(raw.T.cov().contiguous()), raw.T, upper=False).T
    return white @ torch.linalg.cholesky(cov).T + mean


def frechet_by_sqrtm(real: Tensor, fake: Tensor) -> float:
    first, second = np.cov(real.numpy(), rowvar=False), np.cov(fake.numpy(), rowvar=False)
    shift = (real.mean(0) - fake.mean(0)).square().sum().item()
    # The root of the symmetrised product, since that of a singular product need not be found.
    root = np.real(scipy.linalg.sqrtm(first))
    return float(shift + np.trace(first + second - 2 * np.real(scipy.linalg.sqrtm(root @ second @ root))))


@pytest.mark.parametrize("svd_limit", [512, 0])
def test_frechet_of_exact_moments_is_its_closed_form(monkeypatch: pytest.MonkeyPatch, svd_limit: int) -> None:
    """Covariances that share their axes: Σ (√λ₁ − √λ₂)²."""
    monkeypatch.setattr(scores_module, "SVD_LIMIT", svd_limit)
    axes = torch.linalg.qr(normal(12, 12, 1)).Q
    first, second = torch.linspace(0.5, 4, 12).double(), torch.linspace(3, 0.1, 12).double()
    mean, shift = normal(1, 12, 2)[0] + 100, normal(1, 12, 3)[0]
    real = with_moments(70, mean, axes @ first.diag() @ axes.T, 4)
    fake = with_moments(50, mean + shift, axes @ second.diag() @ axes.T, 5)
    expected = shift.square().sum() + (first.sqrt() - second.sqrt()).square().sum()
    assert frechet_distance(real, fake) == pytest.approx(expected.item(), abs=1e-8)
    assert frechet_distance(fake, real) == pytest.approx(expected.item(), abs=1e-8)


def test_frechet_of_covariances_that_do_not_commute_is_the_formula_by_sqrtm() -> None:
    real = with_moments(60, torch.zeros(9).double(), covariance(9, 1), 2)
    fake = with_moments(40, torch.ones(9).double(), covariance(9, 3), 4)
    assert frechet_distance(real, fake) == pytest.approx(frechet_by_sqrtm(real, fake), abs=1e-8)


@pytest.mark.parametrize(("num_real", "num_fake"), [(10, 14), (10, 80), (80, 10)])
def test_frechet_of_fewer_items_than_features_is_the_formula_by_sqrtm(num_real: int, num_fake: int) -> None:
    real, fake = normal(num_real, 30, 1), 2 * normal(num_fake, 30, 2, shift=0.5)
    assert frechet_distance(real, fake) == pytest.approx(frechet_by_sqrtm(real, fake), rel=1e-6)


@pytest.mark.parametrize("svd_limit", [512, 0])
def test_frechet_bears_dependent_and_constant_features(monkeypatch: pytest.MonkeyPatch, svd_limit: int) -> None:
    monkeypatch.setattr(scores_module, "SVD_LIMIT", svd_limit)
    real, fake = normal(50, 4, 1), normal(60, 4, 2, shift=0.3) * 1.5
    wide = [torch.cat([x, torch.full((len(x), 1), 7.0), torch.zeros(len(x), 2), x[:, :2]], 1) for x in (real, fake)]
    weights = torch.tensor([2, 2, 1, 1]).double().sqrt()  # a column twice is that column times √2
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(real * weights, fake * weights), rel=1e-6)
    assert frechet_distance(wide[0], wide[0]) == pytest.approx(0, abs=1e-6)


def test_frechet_is_that_of_torchmetrics() -> None:
    real, fake = normal(80, 16, 1), 1.3 * normal(70, 16, 2, shift=0.2)
    oracle = FrechetInceptionDistance(feature=_Flat(16), normalize=True, input_img_size=(1, 4, 4))
    oracle.set_dtype(torch.float64)
    oracle.update(real.reshape(-1, 1, 4, 4), real=True)
    oracle.update(fake.reshape(-1, 1, 4, 4), real=False)
    assert frechet_distance(real, fake) == pytest.approx(oracle.compute().item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_kernel_of_full_subsets_is_the_closed_form_and_that_of_torchmetrics(rng: torch.Generator) -> None:
    real, fake = normal(60, 16, 1), 1.3 * normal(60, 16, 2, shift=0.2)
    expected = discrepancy_by_loops(real.numpy(), fake.numpy())
    ours = kernel_distance(real, fake, num_subsets=3, subset_size=60, rng=rng)
    assert ours.mean == pytest.approx(expected, rel=1e-10)
    assert ours.standard_error is None and ours.interval is None
    oracle = KernelInceptionDistance(feature=_Flat(16), subsets=2, subset_size=60, normalize=True)
    oracle.set_dtype(torch.float64)
    oracle.update(real.reshape(-1, 1, 4, 4), real=True)
    oracle.update(fake.reshape(-1, 1, 4, 4), real=False)
    assert ours.mean == pytest.approx(oracle.compute()[0].item(), rel=1e-5)


def discrepancy_by_loops(real: np.ndarray, fake: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    within = [np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]) for x in (real, fake)]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in real for b in fake]))


def test_kernel_is_unbiased_and_its_interval_holds_zero(rng: torch.Generator) -> None:
    """40 pairs of samples of one distribution, of few items, where a biased estimate would be far off."""
    values = []
    for seed in range(40):
        real, fake = normal(80, 4, 2 * seed + 100), normal(60, 4, 2 * seed + 101)
        values.append(kernel_distance(real, fake, num_subsets=30, subset_size=30, rng=rng))
    means = torch.tensor([value.mean for value in values])
    assert abs(means.mean()) < 3 * means.std() / math.sqrt(40)
    covered = [value.interval[0] <= 0 <= value.interval[1] for value in values if value.interval]
    assert len(covered) == 40 and sum(covered) >= 36
    errors = torch.tensor([value.standard_error or 0.0 for value in values])
    assert 0.8 < errors.mean() / means.std() < 3  # errs to the large side, within reason


def test_kernel_standard_error_is_the_jackknife_of_the_spread(rng: torch.Generator) -> None:
    value = kernel_distance(normal(90, 3, 1), normal(60, 3, 2), num_subsets=50, subset_size=20, rng=rng)
    assert value.standard_error is not None
    assert value.standard_error == pytest.approx(value.spread * math.sqrt(20 / 40 + 1 / 50))
    assert value.interval == pytest.approx(
        (value.mean - 1.96 * value.standard_error, value.mean + 1.96 * value.standard_error)
    )


def test_kernel_repeats_with_its_generator() -> None:
    real, fake = normal(40, 3, 1), normal(40, 3, 2)
    runs = [
        kernel_distance(real, fake, num_subsets=4, subset_size=9, rng=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def neighbourhood_by_loops(real: np.ndarray, fake: np.ndarray, k: int) -> Neighbourhood:
    """Written from the formulas of the papers; differences, not products, so that copies are at distance zero."""

    def radius(points: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(points[i] - points[j])) for j in range(len(points)) if j != i)[k - 1]

    real_radius = [radius(real, i) for i in range(len(real))]
    fake_radius = [radius(fake, i) for i in range(len(fake))]
    d = [[np.linalg.norm(s - r) for r in real] for s in fake]
    fakes, reals = range(len(fake)), range(len(real))
    return Neighbourhood(
        precision=float(np.mean([any(d[s][r] <= real_radius[r] for r in reals) for s in fakes])),
        recall=float(np.mean([any(d[s][r] <= fake_radius[s] for s in fakes) for r in reals])),
        density=float(np.mean([sum(d[s][r] <= real_radius[r] for r in reals) / k for s in fakes])),
        coverage=float(np.mean([min(d[s][r] for s in fakes) <= real_radius[r] for r in reals])),
    )


def _close(a: Neighbourhood, b: Neighbourhood) -> None:
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-12), name
    inside = (a.balls > 0), a.recalled, a.covered
    assert [each.double().mean().item() for each in inside] == pytest.approx([a.precision, a.recall, a.coverage])


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_neighbourhood_is_the_loops_of_the_papers(k: int, shift: float) -> None:
    real, fake = normal(45, 3, 1), 0.8 * normal(38, 3, 2, shift=shift)
    _close(neighbourhood(real, fake, k=k, block_items=16), neighbourhood_by_loops(real.numpy(), fake.numpy(), k))


@given(seed=st.integers(0, 10_000), distinct=st.integers(1, 8), offset=st.sampled_from([0.0, 1.0, 1000.0]))
@settings(max_examples=25, deadline=None)
def test_neighbourhood_of_copies_is_the_loops_of_the_papers(seed: int, distinct: int, offset: float) -> None:
    """Ties everywhere: few points many times, radii of zero, far from the origin; whole numbers make loops exact."""
    rng = torch.Generator().manual_seed(seed)
    points = torch.randint(-3, 4, (distinct, 4), generator=rng).double() + offset
    real = points[torch.randint(distinct, (14,), generator=rng)]
    fake = points[torch.randint(distinct, (11,), generator=rng)]
    expected = neighbourhood_by_loops(real.numpy(), fake.numpy(), 2)
    _close(neighbourhood(real, fake, k=2, block_items=4), expected)
    _close(neighbourhood(real.float(), fake.float(), k=2), expected)


def test_neighbourhood_of_real_copies_counts_each_tie() -> None:
    """All reals handed in as fakes: k balls of others on average and one's own, so a density of (k + 1) / k."""
    real = normal(300, 40, 1)
    value = neighbourhood(real, real[torch.randperm(300, generator=torch.Generator().manual_seed(1))], k=5)
    _close(value, Neighbourhood(1.0, 1.0, 6 / 5, 1.0))


def test_neighbourhood_does_not_depend_on_order_blocks_or_origin() -> None:
    real, fake = normal(150, 6, 1), normal(130, 6, 2, shift=0.3)
    value = neighbourhood(real, fake)
    rng = torch.Generator().manual_seed(1)
    shuffled = real[torch.randperm(150, generator=rng)], fake[torch.randperm(130, generator=rng)]
    _close(neighbourhood(*shuffled), value)
    for block_items in (1, 7, 150):
        _close(neighbourhood(real, fake, block_items=block_items), value)
    _close(neighbourhood(real + 1e6, fake + 1e6), value)
    assert frechet_distance(*shuffled) == pytest.approx(frechet_distance(real, fake), abs=1e-10)


def test_planted_failures_move_the_scores_that_see_them(rng: torch.Generator) -> None:
    """20 clusters: density and precision are blind to every failure, recall and coverage see collapse."""
    centres = 4 * normal(20, 16, 1)

    def draw(num_items: int, num_clusters: int, seed: int) -> Tensor:
        which = torch.randint(num_clusters, (num_items,), generator=torch.Generator().manual_seed(seed))
        return centres[which] + normal(num_items, 16, seed)

    real = draw(1000, 20, 2)
    fresh, half, few = draw(1000, 20, 3), draw(1000, 10, 4), draw(50, 20, 5).repeat(20, 1)
    noisy = real + 3 * normal(1000, 16, 6)
    ideal, halved, collapsed, blurred = (neighbourhood(real, fake) for fake in (fresh, half, few, noisy))
    copies = neighbourhood(real, real)
    assert ideal.coverage > 0.93 and ideal.density == pytest.approx(1, abs=0.1)
    assert copies.precision == 1 and copies.coverage == 1  # copying is not what these four see
    assert halved.coverage < 0.6 and halved.recall < 0.6 * ideal.recall
    assert halved.precision == pytest.approx(ideal.precision, abs=0.07)
    assert halved.density == pytest.approx(ideal.density, abs=0.15)
    assert collapsed.recall == 0 and collapsed.coverage < 0.4
    assert collapsed.precision > ideal.precision - 0.1
    assert blurred.precision < 0.2 and blurred.density < 0.2
    frechet = [frechet_distance(real, fake) for fake in (real, fresh, few, half)]
    assert frechet == sorted(frechet) and frechet[3] > 10 * frechet[1]
    kernel = [kernel_distance(real, fake, num_subsets=10, subset_size=400, rng=rng).mean for fake in (fresh, half)]
    assert kernel[1] > 20 * abs(kernel[0])


def test_unusable_features_are_refused(rng: torch.Generator) -> None:
    good, broken = normal(10, 3, 1), normal(10, 3, 1)
    broken[7, 1] = math.nan
    with pytest.raises(DataError, match="fake features: row 7 is not finite"):
        frechet_distance(good, broken)
    with pytest.raises(DataError, match="real features: row 7"):
        neighbourhood(broken, good)
    with pytest.raises(DataError, match="5 fake items; this score needs at least 6"):
        neighbourhood(good, good[:5], k=5)
    with pytest.raises(DataError, match="1 real items"):
        frechet_distance(good[:1], good)
    with pytest.raises((DataError, TypeCheckError), match=r"width of 3|fake"):
        frechet_distance(good, good[:, :2])
    with pytest.raises((DataError, TypeCheckError), match=r"shape \(3,\)|real"):
        frechet_distance(good[0], good)
    with pytest.raises(UsageError, match="k=0"):
        neighbourhood(good, good, k=0)
    with pytest.raises(UsageError, match="subset_size=1000 but a set has 10 items; pass at most 5"):
        kernel_distance(good, good, rng=rng)
    with pytest.raises(UsageError, match="at least 1 and 2"):
        kernel_distance(good, good, subset_size=1, rng=rng)


def test_yardstick_gives_each_score_beside_that_of_real_data() -> None:
    real, fake, fresh = normal(200, 6, 1), normal(150, 6, 2, shift=1.0), normal(150, 6, 3)
    result = yardstick(real, fake, baseline_feats=fresh, protocol=PROTOCOL)
    assert result.frechet.value == frechet_distance(real, fake)
    assert result.frechet.real_baseline == frechet_distance(real, fresh)
    rng = torch.Generator().manual_seed(3)
    assert result.kernel.value == kernel_distance(real, fake, subset_size=75, rng=rng).mean
    assert result.kernel.low is not None and result.kernel.high is not None
    assert result.kernel.low < (result.kernel.value or 0) < result.kernel.high
    theirs, ours = neighbourhood(real, fake), neighbourhood(real, fresh)
    for name in ("precision", "recall", "density", "coverage"):
        assert result.scores()[name] == Score(getattr(theirs, name), None, None, getattr(ours, name))
    expected = {"n_real": 200, "n_fake": 150, "n_baseline": 150, "num_features": 6, "k": 5, "kernel_subset_size": 75}
    assert dict(result.protocol) == {**PROTOCOL, **expected}
    assert result == yardstick(real, fake, baseline_feats=fresh, protocol=PROTOCOL)


def test_yardstick_prints_and_saves_all_of_it() -> None:
    result = yardstick(normal(60, 2, 1), normal(60, 2, 2), baseline_feats=normal(55, 2, 3), protocol=PROTOCOL)
    table = str(result)
    for word in ("frechet", "kernel", "coverage", "real data", "columns", "n_fake: 60", "55 items"):
        assert word in table
    saved = json.loads(result.to_json())
    assert saved["protocol"]["reference"] == "train"
    assert saved["scores"]["recall"]["value"] == result.recall.value
    assert list(saved["scores"]) == ["frechet", "kernel", "precision", "recall", "density", "coverage"]


@pytest.mark.parametrize(("num_real", "num_fake"), [(49, 300), (300, 49)])
def test_yardstick_measures_nothing_from_fewer_than_fifty_items(num_real: int, num_fake: int) -> None:
    result = yardstick(normal(num_real, 80, 1), normal(num_fake, 80, 2), baseline_feats=None, protocol=PROTOCOL)
    assert all(score.value is None and score.real_baseline is None for score in result.scores().values())
    assert "at least 50 items" in result.coverage.note and "at least 80 items" in result.frechet.note
    assert str(result).count("NOT MEASURED") == 6
    assert json.loads(result.to_json())["scores"]["frechet"]["value"] is None


def test_yardstick_measures_no_frechet_distance_from_fewer_items_than_features() -> None:
    real, fake = normal(90, 64, 1), normal(63, 64, 2)
    result = yardstick(real, fake, baseline_feats=real[:64], protocol=PROTOCOL)
    assert result.frechet.value is None and "at least 64 items on each side, has 63" in result.frechet.note
    assert result.frechet.real_baseline is not None and result.coverage.value is not None
    few = yardstick(real, real, baseline_feats=fake[:20], protocol=PROTOCOL)
    assert few.coverage.value == 1 and few.coverage.real_baseline is None and "has 20" in few.coverage.note


def test_yardstick_refuses_a_protocol_that_says_too_little() -> None:
    real = normal(60, 2, 1)
    for key in PROTOCOL_KEYS:
        with pytest.raises(UsageError, match=key):
            yardstick(real, real, baseline_feats=None, protocol={k: v for k, v in PROTOCOL.items() if k != key})
    with pytest.raises(UsageError, match="seed=None"):
        yardstick(real, real, baseline_feats=None, protocol={**PROTOCOL, "seed": None})
    with pytest.raises(UsageError, match="JSON"):
        yardstick(real, real, baseline_feats=None, protocol={**PROTOCOL, "truncation": math.nan})


def test_modes_are_found_by_one_good_sample() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = torch.tensor([[0.29, 0.0], [0.31, 0.0], [10.0, 0.2], [10.0, 0.25], [0.0, 10.4], [math.nan, 0.0]])
    modes = count_modes(points, centres, 0.1)
    assert (modes.found, modes.counts) == (2, (1, 2, 0))
    assert modes.share_within_3sd == pytest.approx(3 / 6)


def test_mixtures_hold_their_modes_and_the_share_of_two_dimensions(rng: torch.Generator) -> None:
    for (points, centres), sd, total in (
        (ring_of_gaussians(20_000, rng=rng), 0.02, 8),
        (grid_of_gaussians(20_000, rng=rng), 0.05, 25),
    ):
        modes = count_modes(points, centres, sd)
        assert modes.found == len(modes.counts) == total
        assert modes.share_within_3sd == pytest.approx(1 - math.exp(-4.5), abs=0.003)
        assert min(modes.counts) > 0.8 * 20_000 / total
        nearest = pairwise_distances(points.numpy(), centres.numpy()).argmin(1)
        residual = points - centres[torch.from_numpy(nearest)]
        assert residual.std(0).tolist() == pytest.approx([sd, sd], rel=0.03)
        assert count_modes(points[torch.from_numpy(nearest) < 5], centres, sd).found == 5
    ring, grid = ring_of_gaussians(1, rng=rng)[1], grid_of_gaussians(1, rng=rng)[1]
    assert ring.norm(dim=1).tolist() == pytest.approx([2.0] * 8)
    assert ring.sum(0).tolist() == pytest.approx([0, 0], abs=1e-5)  # all the way round
    assert sorted(set(grid.flatten().tolist())) == [-4, -2, 0, 2, 4] and len(set(map(tuple, grid.tolist()))) == 25


def test_modes_refuse_what_they_cannot_count() -> None:
    points = torch.zeros(3, 2)
    with pytest.raises(UsageError, match="standard_deviation=0"):
        count_modes(points, points, 0.0)
    with pytest.raises(DataError, match="at least one point"):
        count_modes(points[:0], points, 0.1)


def test_results_are_plain_values() -> None:
    assert KernelDistance(1.0, 0.5, None).interval is None
    assert KernelDistance(1.0, 0.5, 0.1).interval == pytest.approx((0.804, 1.196))
    assert str(Score(None, note="needs more")).startswith("NOT MEASURED")
    assert Yardstick.__dataclass_params__.frozen and Score.__dataclass_params__.frozen  # pyright: ignore


class _Flat(nn.Module):
    """Features that are the pixels, for the oracles."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)
