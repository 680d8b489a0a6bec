"""The scores that other programs compute too, on the same features: equal to 1e-3 and mostly far better."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from ganlib.metrics.classes import inception_score
from ganlib.metrics.scores import frechet_distance, kernel_distance, neighbourhood
from other_libraries import torch_fidelity

WIDTH = 64


def features(num_items: int, seed: int, shift: float = 0.0) -> Tensor:
    """Positive, skewed and correlated, as those of a network are, not normal."""
    rng = torch.Generator().manual_seed(seed)
    raw = torch.randn(num_items, WIDTH, generator=rng, dtype=torch.float64) + shift
    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (raw @ mixing / 8).relu() + 0.1 * raw.square()


class Flat(nn.Module):
    """An extractor whose features are its input."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def pictures(rows: Tensor) -> Tensor:
    return rows.reshape(len(rows), 1, 8, 8)


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    real, fake = features(500, 1), features(400, 2, 0.2)
    theirs = FrechetInceptionDistance(feature=Flat(WIDTH), normalize=True, input_img_size=(1, 8, 8))
    theirs.set_dtype(torch.float64)
    theirs.update(pictures(real), real=True)
    theirs.update(pictures(fake), real=False)
    assert frechet_distance(real, fake) == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_frechet_distance_is_that_of_torch_fidelity() -> None:
    module = torch_fidelity("metric_fid")
    real, fake = features(500, 1), features(400, 2, 0.2)
    first, second = (module.fid_features_to_statistics(rows) for rows in (real, fake))
    theirs = module.fid_statistics_to_metric(first, second, False)[module.KEY_METRIC_FID]
    assert frechet_distance(real, fake) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_kernel_distance_is_that_of_torchmetrics(rng: torch.Generator) -> None:
    real, fake = features(300, 1), features(300, 2, 0.2)
    theirs = KernelInceptionDistance(feature=Flat(WIDTH), subsets=2, subset_size=300, normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(pictures(real), real=True)
    theirs.update(pictures(fake), real=False)
    ours = kernel_distance(real, fake, num_subsets=1, subset_size=300, rng=rng).mean
    assert ours == pytest.approx(theirs.compute()[0].item(), rel=1e-6)


def test_kernel_distance_is_that_of_torch_fidelity(rng: torch.Generator) -> None:
    module = torch_fidelity("metric_kid")
    real, fake = features(300, 1), features(300, 2, 0.2)
    whole = module.kid_features_to_metric(real, fake, kid_subsets=1, kid_subset_size=300, verbose=False)
    ours = kernel_distance(real, fake, num_subsets=1, subset_size=300, rng=rng)
    assert ours.mean == pytest.approx(whole[module.KEY_METRIC_KID_MEAN], rel=1e-6)
    # Subsets differ by the draw: the means agree within their errors, the spreads are of one size.
    theirs = module.kid_features_to_metric(real, fake, kid_subsets=200, kid_subset_size=100, verbose=False)
    ours = kernel_distance(real, fake, num_subsets=200, subset_size=100, rng=rng)
    assert abs(ours.mean - theirs[module.KEY_METRIC_KID_MEAN]) < 5 * ours.spread / np.sqrt(200)
    assert ours.spread == pytest.approx(theirs[module.KEY_METRIC_KID_STD], rel=0.25)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save:UserWarning")
def test_inception_score_is_that_of_torchmetrics() -> None:
    logits = 3 * features(400, 1)[:, :10]
    theirs = InceptionScore(feature=Flat(10), splits=4)
    theirs.set_dtype(torch.float64)
    theirs.update(logits.reshape(400, 10, 1, 1))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        mean, spread = theirs.compute()
    ours = inception_score(logits, num_splits=4, rng=torch.Generator().manual_seed(5))
    # The same shuffle; of four splits they divide the squares by three, as an estimate, and the authors by four.
    assert (ours.mean, ours.spread * np.sqrt(4 / 3)) == pytest.approx((mean.item(), spread.item()), rel=1e-6)
    assert ours.mean > 1.5


@pytest.mark.parametrize("num_splits", [1, 4])
def test_inception_score_is_that_of_torch_fidelity(num_splits: int) -> None:
    module = torch_fidelity("metric_isc")
    logits = 3 * features(400, 1)[:, :10]
    theirs = module.isc_features_to_metric(logits, num_splits, shuffle=False)
    ours = inception_score(logits, num_splits=num_splits, rng=None)
    expected = theirs[module.KEY_METRIC_ISC_MEAN], theirs[module.KEY_METRIC_ISC_STD]
    assert (ours.mean, ours.spread) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_those_of_torch_fidelity(k: int) -> None:
    module = torch_fidelity("metric_prc")
    real, fake = features(500, 1), features(400, 2, 0.2)
    theirs = module.calculate_precision_recall_full(fake, real, neighborhood=k)
    ours = neighbourhood(real, fake, k=k)
    assert (ours.precision, ours.recall) == pytest.approx(theirs, rel=1e-6)
    assert 0.05 < ours.precision < 1 or 0.05 < ours.recall < 1


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbourhood_is_that_of_prdc(k: int) -> None:
    """Features without ties; at a tie prdc counts `<` where the papers have `≤`."""
    prdc = pytest.importorskip("prdc", reason="prdc is not installed: pip install prdc")
    real, fake = features(500, 1), features(400, 2, 0.2)
    theirs = prdc.compute_prdc(real.numpy(), fake.numpy(), k)
    ours = neighbourhood(real, fake, k=k)
    assert {name: getattr(ours, name) for name in theirs} == pytest.approx(theirs, rel=1e-6)
    assert set(theirs) == {"precision", "recall", "density", "coverage"}
