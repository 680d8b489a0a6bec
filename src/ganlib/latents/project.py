"""Projection: the point from which a model makes a picture most like a given one.

Adam on the point from the best of many random ones, as in Karras et al. 2020, arXiv:1912.04958, section 5 and appendix
D, but from several starts, with random features in place of learned ones, and without noise on the point; a style for
each stage as in Abdal et al. 2019, arXiv:1904.03189.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ganlib.core import Condition
from ganlib.data import Data, decode
from ganlib.errors import UsageError
from ganlib.latents.space import Kind, Space, items_at, picture_space, random_points
from ganlib.metrics.features import RandomConvolutions, quantise
from ganlib.model import Model

STARTS = 4
MOST_CLASSES = 10
GROUP_ITEMS = 16
"""Pictures that share the pass over the random points."""

LEAST_RANDOM = GROUP_ITEMS * STARTS
"""So that there are enough of each class that a group of pictures may have."""


@dataclass(frozen=True)
class Search:
    """How a point is looked for: `rate` is Adam's at the start, in units of the spread of random points.

    `pull` weighs how strange a point is, so that the search stays where the model was trained.
    """

    num_steps: int = 300
    num_random: int = 1000
    seed: int = 0
    rate: float = 0.1
    pull: float = 0.3

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.num_random < LEAST_RANDOM or self.seed < 0:
            raise UsageError(
                f"{self.num_steps} steps, {self.num_random} random latents, seed {self.seed}: accepted are 1 step, "
                f"{LEAST_RANDOM} random latents and seed 0 at least"
            )


@dataclass(frozen=True)
class Distance:
    """How far a picture is from the given one, both in 8 bits: low `features` and high `psnr` are near.

    `psnr` is in dB, infinite for the same picture. `features` is the difference of :func:`feature_distance`, 0 for the
    same picture and about 1 for one that has nothing to do with it.
    """

    psnr: float
    features: float


@dataclass(frozen=True)
class Projected:
    """The best point that was found, its class and item, and how near it is.

    Beside it what the search began with, the best of the random points, and what needs no search, the mean of the
    random items.
    """

    point: Float[Tensor, " numbers"]
    label: int | None
    item: Float[Tensor, "channels height width"]
    found: Distance
    best_random: Distance
    mean: Distance


@dataclass(frozen=True)
class Projection:
    """The projections of several pictures: points of a space, class numbers, and the items in the owner's form."""

    kind: Kind
    points: Shaped[np.ndarray, "items numbers"]
    labels: Shaped[np.ndarray, " items"] | None
    items: Shaped[np.ndarray, "items ..."]
    each: tuple[Projected, ...]


def projection(model: Model, given: Data, search: Search, kind: Kind = "auto") -> Projection:
    """The projection of data of the model's own kind, by their labels where they have some; see :func:`project`."""
    space = picture_space(model, kind)
    batch = given.batch(np.arange(len(given)))
    labels = batch["label"] if model.label_share and "label" in batch else None
    found = [each for each in project(space, batch["real"], labels, search) if each is not None]
    items = decode(model.setting.spec, torch.stack([each.item for each in found]))
    points = torch.stack([each.point for each in found]).numpy()
    classes = np.array([each.label for each in found]) if model.label_share else None
    return Projection(space.kind, points, classes, items, tuple(found))


def maps_for(channels: int) -> RandomConvolutions:
    """The features by which pictures are compared: those of a random network, which know nothing of what is shown."""
    return RandomConvolutions(channels_in=channels)


def feature_distance(
    made: Sequence[Float[Tensor, "batch ..."]], wanted: Sequence[Float[Tensor, "one ..."]]
) -> Float[Tensor, " batch"]:
    """The mean over depths of Σ|f − r| / Σ|r|, with the feature maps f of pictures and r of the one they should be."""
    shares = [
        (f - r).abs().flatten(1).mean(1) / r.abs().mean().clamp(min=1e-12) for f, r in zip(made, wanted, strict=True)
    ]
    return torch.stack(shares).mean(0)


def project(
    space: Space, reals: Float[Tensor, "items channels height width"], labels: Condition, search: Search
) -> Iterator[Projected | None]:
    """The projection of each picture in order, after each None as often as there are steps, for those who wait.

    `labels` is a class for each picture; without, of a model with classes the ten are tried whose best random item is
    nearest.
    """
    features = maps_for(reals.shape[1])
    for first in range(0, len(reals), GROUP_ITEMS):
        group = reals[first : first + GROUP_ITEMS].to(space.model.device)
        known = None if labels is None else labels[first : first + GROUP_ITEMS]
        drawn = _drawn(space, features, group, known, search)
        rate = search.rate * float(drawn.points.std(0).mean())
        for number, real in enumerate(group):
            rows = _starts(drawn.distances[number], drawn.condition, labels is not None)
            condition = None if drawn.condition is None else drawn.condition[rows]
            starts = drawn.points[rows.to(drawn.points.device)]
            point, best = yield from _descend(space, features, real[None], starts, condition, rate, search)
            classes = None if condition is None else condition[[best, 0]]
            items = items_at(space, torch.stack([point, starts[0]]), classes)
            shown = torch.cat([items, drawn.means[number][None]]).to(group.device)
            distances = [_distance(features, item, real) for item in shown]
            yield Projected(point.cpu(), None if classes is None else int(classes[0]), items[0], *distances)


@dataclass(frozen=True)
class _Drawn:
    """Random points and classes; the distance of each item to each picture, infinite where the class is another."""

    points: Float[Tensor, "points numbers"]
    condition: Int[Tensor, " points"] | None
    distances: Float[Tensor, "items points"]
    means: Float[Tensor, "items channels height width"]


@torch.no_grad()
def _drawn(space: Space, features: RandomConvolutions, reals: Tensor, labels: Tensor | None, search: Search) -> _Drawn:
    classes = None
    if space.model.label_share:
        classes = torch.arange(len(space.model.label_share)) if labels is None else labels.unique()
    points, condition = random_points(space, search.num_random, search.seed, classes)
    allowed = torch.ones(len(reals), len(points), dtype=torch.bool)
    if labels is not None and condition is not None:
        allowed = labels[:, None] == condition
    wanted = [features.maps(real[None]) for real in reals]
    distances, sums, size = [], torch.zeros(reals.shape), space.model.sampler.chunk_items
    for first in range(0, len(points), size):
        part = slice(first, first + size)
        items = items_at(space, points[part], None if condition is None else condition[part]).clamp(-1, 1)
        sums += torch.einsum("rn,n...->r...", allowed[:, part].float(), items)
        maps = features.maps(items.to(reals.device))
        distances.append(torch.stack([feature_distance(maps, of_real) for of_real in wanted]).cpu())
    means = sums / allowed.sum(1)[:, None, None, None]
    return _Drawn(points, condition, torch.cat(distances, 1).masked_fill(~allowed, math.inf), means)


def _starts(distances: Float[Tensor, " points"], condition: Tensor | None, one_class: bool) -> Int[Tensor, " starts"]:
    """The nearest points, or the nearest of each of the classes to try; the nearest of all is the first."""
    order = distances.argsort()
    if condition is None or one_class:
        return order[:STARTS]
    seen: dict[int, int] = {}
    for row in order.tolist():
        seen.setdefault(int(condition[row]), row)
    return torch.tensor(list(seen.values())[:MOST_CLASSES])


def _descend(
    space: Space,
    features: RandomConvolutions,
    real: Float[Tensor, "1 channels height width"],
    starts: Float[Tensor, "starts numbers"],
    condition: Condition,
    rate: float,
    search: Search,
) -> Generator[None, None, tuple[Float[Tensor, " numbers"], int]]:
    """Yields after each step; returns the best point and the number of its start.

    Minimises mean |x - r| + feature distance + pull · strangeness, with the picture x clamped to what can be shown,
    which its gradient ignores: pixels beyond would have none. The rate falls to 0 by half a cosine.
    """
    condition = None if condition is None else condition.to(real.device)
    points = starts.clone()
    optimiser = torch.optim.Adam([points], lr=rate)
    wanted = features.maps(real)
    best, lowest = points.clone(), torch.full((len(points),), math.inf, device=points.device)
    for step in range(search.num_steps):
        points.requires_grad_(True)
        with torch.enable_grad():
            items = space.items(points, condition)
            items = items + (items.clamp(-1, 1) - items).detach()
            loss = (items - real).abs().flatten(1).mean(1) + feature_distance(features.maps(items), wanted)
            loss = loss + search.pull * space.strangeness(points)
            (points.grad,) = torch.autograd.grad(loss.sum(), points)
        points.requires_grad_(False)
        nearer = loss.detach() < lowest
        lowest, best = torch.where(nearer, loss.detach(), lowest), torch.where(nearer[:, None], points, best)
        optimiser.param_groups[0]["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * step / search.num_steps))
        optimiser.step()
        yield None
    chosen = int(lowest.argmin())
    return best[chosen], chosen


@torch.no_grad()
def _distance(features: RandomConvolutions, item: Tensor, real: Tensor) -> Distance:
    item, real = quantise(item)[None], quantise(real)[None]
    error = float((item - real).square().mean())
    psnr = math.inf if error == 0 else 10 * math.log10(4 / error)
    return Distance(psnr, float(feature_distance(features.maps(item), features.maps(real))))
