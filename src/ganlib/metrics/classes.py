"""Scores that need classes: of a classifier's predictions, or of labels that come with the items."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.checks import checked, checked_labels, checked_pair
from ganlib.metrics.intervals import wilson
from ganlib.metrics.scores import frechet_distance


@dataclass(frozen=True)
class InceptionScore:
    """The mean over the splits, from 1 to the number of classes, and their standard deviation: not its error."""

    mean: float
    spread: float


@dataclass(frozen=True)
class FrechetByClass:
    """The distance within each class, None where it has too few items, and their mean, None where one is missing."""

    mean: float | None
    by_class: Mapping[int, float | None]
    note: str = ""


@dataclass(frozen=True)
class ClassificationAccuracy:
    """The share of real items that a classifier of synthetic ones gets right, its 95 % interval, the share by class.

    A class that no test item has is not in `by_class`.
    """

    accuracy: float
    low: float
    high: float
    by_class: Mapping[int, float]


@dataclass(frozen=True)
class StackedModes:
    """How many combinations of classes occur, and how far from equally often, in nats; `counts` by combination."""

    found: int
    divergence: float
    counts: tuple[int, ...]


def inception_score(
    predictions: Float[Tensor, "n classes"],
    *,
    logits: bool = True,
    num_splits: int = 10,
    rng: torch.Generator | None,
) -> InceptionScore:
    """How sure a classifier is of each item, and of how many classes they are: ``exp mean KL(p(y|x) ‖ p(y))``.

    Over each of `num_splits` parts, shuffled by `rng`; None keeps the order, which is wrong for items that come class
    by class. Salimans et al. 2016, arXiv:1606.03498. Blind to copies and to variety within a class. With
    ``logits=False`` each row must be probabilities that add up to 1. DataError for fewer items than splits.
    """
    if num_splits < 1:
        raise UsageError(f"num_splits={num_splits}: accepted is at least 1, such as 10")
    rows = checked(predictions, "predicted", min_items=num_splits)
    if not logits and (rows.min() < 0 or (rows.sum(1) - 1).abs().max() > 1e-3):
        raise DataError("predictions are not probabilities that add up to 1; pass logits=True if they are logits")
    if rng is not None:
        rows = rows[torch.randperm(len(rows), generator=rng, device=rng.device).to(rows.device)]
    rows = rows.softmax(1) if logits else rows
    scores = []
    for part in rows.tensor_split(num_splits):
        mean = part.mean(0)
        scores.append((torch.xlogy(part, part) - torch.xlogy(part, mean)).sum(1).mean().exp())
    values = torch.stack(scores)
    return InceptionScore(values.mean().item(), values.std(correction=0).item())


def frechet_by_class(
    real: Float[Tensor, "n d"],
    real_labels: Int[Tensor, " n"],
    fake: Float[Tensor, "m d"],
    fake_labels: Int[Tensor, " m"],
    *,
    min_items: int | None = None,
) -> FrechetByClass:
    """The Fréchet distance within each class of the reals, and the mean over the classes: the intra-class distance.

    Miyato & Koyama 2018, arXiv:1802.05637. Sees what the distance of all cannot: a condition that is ignored. A class
    needs `min_items` on each side, as many as there are features unless given. DataError for a class of the fakes
    that the reals do not have.
    """
    real, fake = checked_pair(real, fake, min_items=1)
    real_labels = checked_labels(real_labels, "real", len(real))
    fake_labels = checked_labels(fake_labels, "fake", len(fake))
    needed = max(2, real.shape[1] if min_items is None else min_items)
    classes = real_labels.unique().tolist()
    unknown = sorted(set(fake_labels.unique().tolist()) - set(classes))
    if unknown:
        raise DataError(f"fakes of the classes {unknown}, which no real item has; give reals of all classes")
    by_class: dict[int, float | None] = {}
    short = []
    for label in classes:
        reals, fakes = real[real_labels == label], fake[fake_labels == label]
        enough = min(len(reals), len(fakes)) >= needed
        by_class[label] = frechet_distance(reals, fakes) if enough else None
        if not enough:
            short.append(f"class {label} has {len(reals)} reals and {len(fakes)} fakes")
    if short:
        note = f"needs at least {needed} items of each class on each side: {'; '.join(short)}"
        return FrechetByClass(None, by_class, note)
    distances = [distance for distance in by_class.values() if distance is not None]
    return FrechetByClass(sum(distances) / len(distances), by_class)


def classification_accuracy(
    synthetic: Float[Tensor, "n d"],
    synthetic_labels: Int[Tensor, " n"],
    real: Float[Tensor, "m d"],
    real_labels: Int[Tensor, " m"],
    *,
    penalty: float = 1e-3,
) -> ClassificationAccuracy:
    """Train on synthetic items, test on real ones: of use is a generator whose classes teach what the real ones are.

    Ravuri & Vinyals 2019, arXiv:1905.10887, there with a deep network on images; here multinomial logistic regression
    on features, standardised by the synthetic ones: it minimises ``mean cross-entropy + penalty/2 ‖W‖²``, by 200
    steps of L-BFGS at most, so that nothing is drawn. Wilson's interval, for the draw of the test items alone. Compare
    with the same number of real training items. DataError for unusable features or labels.
    """
    if not penalty > 0:
        raise UsageError(f"penalty={penalty}: accepted is a number above 0, such as 1e-3")
    real, synthetic = checked_pair(real, synthetic, min_items=2)
    synthetic_labels = checked_labels(synthetic_labels, "synthetic", len(synthetic))
    real_labels = checked_labels(real_labels, "real", len(real))
    num_classes = 1 + max(int(synthetic_labels.max()), int(real_labels.max()))
    deviation, mean = torch.std_mean(synthetic, dim=0, correction=0)
    # A column that is constant up to rounding says nothing; divided by its deviation it would say noise.
    scale = torch.where(deviation > 1e-9 * mean.abs(), deviation, math.inf)
    weight, bias = _fitted((synthetic - mean) / scale, synthetic_labels, num_classes, penalty)
    right = (((real - mean) / scale) @ weight + bias).argmax(1) == real_labels
    interval = wilson(int(right.sum()), len(right))
    by_class = {label: right[real_labels == label].double().mean().item() for label in real_labels.unique().tolist()}
    return ClassificationAccuracy(right.double().mean().item(), interval.low, interval.high, by_class)


def stacked_modes(classes: Int[Tensor, "n columns"], *, num_classes: int = 10) -> StackedModes:
    """The modes of items made of several digits, as of three in colour channels: 1,000 modes, ``KL(p ‖ uniform)``.

    Lin et al. 2018, arXiv:1712.04086; Srivastava et al. 2017, arXiv:1705.07761. Of n items that are spread evenly the
    divergence is about ``(modes − 1)/2n``, 0.019 for the customary 26,000. DataError for class numbers out of range.
    """
    if classes.ndim != 2 or not len(classes) or not classes.shape[1]:
        raise DataError(f"classes of shape {tuple(classes.shape)}; accepted is (items, columns), at least one item")
    flat = checked_labels(classes.flatten(), "predicted", classes.numel(), num_classes).reshape(classes.shape)
    mode = torch.zeros_like(flat[:, 0])
    for column in flat.unbind(1):
        mode = mode * num_classes + column
    num_modes = num_classes ** classes.shape[1]
    counts = torch.bincount(mode, minlength=num_modes)
    shares = counts.double() / len(classes)
    divergence = torch.xlogy(shares, shares * num_modes).sum().item()
    return StackedModes(int((counts > 0).sum()), divergence, tuple(counts.tolist()))


def _fitted(
    features: Float[Tensor, "n d"], labels: Tensor, num_classes: int, penalty: float
) -> tuple[Float[Tensor, "d classes"], Float[Tensor, " classes"]]:
    """The weights and biases at the minimum; biases are not penalised."""
    # Outside any inference mode of the caller, in which nothing could be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        features, labels = features.clone(), labels.clone()
        weight = features.new_zeros(features.shape[1], num_classes, requires_grad=True)
        bias = features.new_zeros(num_classes, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weight, bias], max_iter=200, history_size=20, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = F.cross_entropy(features @ weight + bias, labels) + penalty / 2 * weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)  # pyright: ignore[reportArgumentType]
    return weight.detach(), bias.detach()
