"""Walks through a model's pictures, from one to the next."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ganlib.core import Condition
from ganlib.errors import UsageError
from ganlib.latents.space import Space, random_points


def walk(
    space: Space,
    stops: Sequence[int],
    num_steps: int,
    *,
    seed: int,
    label: Int[Tensor, " one"] | None = None,
    truncation: float | None = None,
) -> tuple[Float[Tensor, "points numbers"], Condition]:
    """Points along the way from stop to stop, and their class; `num_steps` from one to the next, both ends counted.

    A stop within is not repeated. Stops are items of a seed by number, all of one class, by default that of the first.
    """
    if label is not None and len(label) != 1:
        raise UsageError(f"{len(label)} classes for one walk; give one")
    if min(stops) < 0:
        raise UsageError(f"from {stops[0]} to {min(stops)}: items are counted from 0")
    number = max(stops) + 1
    if space.model.label_share and label is None:
        label = space.model.sampler.labels(stops[0] + 1, seed)[-1:]
    points, condition = random_points(space, number, seed, label, truncation)
    legs = [space.way(points[a], points[b], num_steps)[1:] for a, b in itertools.pairwise(stops)]
    path = torch.cat([points[stops[0]][None], *legs])
    return path, None if condition is None else condition[:1].expand(len(path))


def closed_walk(
    space: Space,
    num_keys: int,
    num_steps: int,
    *,
    seed: int,
    label: Int[Tensor, " one"] | None = None,
    truncation: float | None = None,
) -> tuple[Float[Tensor, "points numbers"], Condition]:
    """A walk over the first items of a seed and back to the first, which is not repeated: as an animation it goes on.

    `num_steps` steps lead from each key to the next, so that there are `num_keys` · `num_steps` points.
    """
    if num_keys < 2 or num_steps < 1:
        raise UsageError(f"{num_keys} keys, {num_steps} steps: accepted are at least 2 keys and 1 step between them")
    path, condition = walk(space, [*range(num_keys), 0], num_steps + 1, seed=seed, label=label, truncation=truncation)
    return path[:-1], None if condition is None else condition[:-1]
