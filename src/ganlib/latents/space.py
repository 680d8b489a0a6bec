"""Where a model's pictures come from: points, and the ways between them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ganlib.core import Condition
from ganlib.errors import UsageError
from ganlib.model import Model
from ganlib.networks.stylegan2 import StyleGAN2Generator
from ganlib.sampling import slerp

Kind = Literal["auto", "latent", "style", "styles"]
"""The latents themselves; the styles made of them (W); a style of its own for each stage (W+). "auto": W or latents."""


class Space(ABC):
    """Points [n, numbers] that a model makes items of. They are on its device, of its own numbers, and differentiable.

    All that takes a condition takes a class for each point, and None where the model was trained without classes.
    """

    model: Model

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """Its name."""

    @abstractmethod
    def points(self, latent: Float[Tensor, "batch latent"], condition: Condition) -> Float[Tensor, "batch numbers"]:
        """The points of latents, which may be anywhere."""

    @abstractmethod
    def items(self, points: Float[Tensor, "batch numbers"], condition: Condition) -> Float[Tensor, "batch *item"]:
        """What the generator makes of points, without bounds."""

    @abstractmethod
    def way(
        self, start: Float[Tensor, " numbers"], end: Float[Tensor, " numbers"], num_steps: int
    ) -> Float[Tensor, "steps numbers"]:
        """Points from one to another, both included."""

    @abstractmethod
    def strangeness(self, points: Float[Tensor, "batch numbers"]) -> Float[Tensor, " batch"]:
        """How far from where points usually lie; differentiable, 0 where nothing is known of it."""


@final
@dataclass(frozen=True)
class Latents(Space):
    """The random input itself, of normal numbers: ways follow the sphere on which nearly all of them lie."""

    model: Model

    @property
    def kind(self) -> Kind:
        return "latent"

    def points(self, latent: Float[Tensor, "batch latent"], condition: Condition) -> Float[Tensor, "batch latent"]:
        return latent.to(self.model.device, torch.float32)

    def items(self, points: Float[Tensor, "batch latent"], condition: Condition) -> Float[Tensor, "batch *item"]:
        return self.model.plan.task.sample(self.model.generator, points, condition).float()

    def way(
        self, start: Float[Tensor, " latent"], end: Float[Tensor, " latent"], num_steps: int
    ) -> Float[Tensor, "steps latent"]:
        return slerp(start, end, num_steps)

    def strangeness(self, points: Float[Tensor, "batch latent"]) -> Float[Tensor, " batch"]:
        """(‖z‖ / √d − 1)²: the norm of d normal numbers is √d, give or take 0.7."""
        return (points.norm(dim=1) / points.shape[1] ** 0.5 - 1).square()


@final
@dataclass(frozen=True)
class Styles(Space):
    """What the mapping network of a style-based generator makes of latents: one style, or a style for each stage.

    It need not lie on a sphere, and is less entangled than the latents (Karras et al. 2019, arXiv:1812.04948): ways
    are straight. With `per_stage` a point is the styles of all stages in a row, the coarsest first; alike at first.
    """

    model: Model
    per_stage: bool = False

    @property
    def kind(self) -> Kind:
        return "styles" if self.per_stage else "style"

    @property
    def network(self) -> StyleGAN2Generator:
        assert isinstance(self.model.generator, StyleGAN2Generator)
        return self.model.generator

    def points(self, latent: Float[Tensor, "batch latent"], condition: Condition) -> Float[Tensor, "batch numbers"]:
        device = self.model.device
        with torch.no_grad():
            style = self.network.mapping(latent.to(device), None if condition is None else condition.to(device))
        return style.repeat(1, self.network.num_stages) if self.per_stage else style

    def items(self, points: Float[Tensor, "batch numbers"], condition: Condition) -> Float[Tensor, "batch *item"]:
        stages = self.network.num_stages
        if self.per_stage:
            styles = points.unflatten(1, (stages, -1)).transpose(0, 1)
        else:
            styles = points.expand(stages, *points.shape)
        return self.network.synthesis(styles).float()

    def way(
        self, start: Float[Tensor, " numbers"], end: Float[Tensor, " numbers"], num_steps: int
    ) -> Float[Tensor, "steps numbers"]:
        return torch.lerp(start[None], end[None], torch.linspace(0, 1, num_steps, device=start.device)[:, None])

    def strangeness(self, points: Float[Tensor, "batch numbers"]) -> Float[Tensor, " batch"]:
        return points.new_zeros(len(points))


def space_of(model: Model, kind: Kind = "auto") -> Space:
    """The space of that kind. Raises :class:`UsageError` where the model has none."""
    if kind not in get_args(Kind):
        raise UsageError(f"no space {kind!r}; there are {', '.join(get_args(Kind))}")
    if not model.plan.task.draws:
        raise UsageError(
            f"recipe {model.recipe.name} makes pictures of pictures and has no latents to look into: give it some "
            "with ganlib predict"
        )
    styled = isinstance(model.generator, StyleGAN2Generator)
    if kind == "latent" or (kind == "auto" and not styled):
        return Latents(model)
    if not styled:
        raise UsageError(f"recipe {model.recipe.name} has no styles; stylegan2 has")
    return Styles(model, per_stage=kind == "styles")


def picture_space(model: Model, kind: Kind = "auto") -> Space:
    """:func:`space_of`, for what only pictures have. Raises :class:`UsageError` for a model of vectors too."""
    space = space_of(model, kind)
    if model.setting.spec.kind != "image":
        raise UsageError("this model makes vectors, and this is for pictures; GAN.interpolate takes both")
    return space


def random_points(
    space: Space, num_points: int, seed: int, classes: Int[Tensor, " given"] | None, truncation: float | None = None
) -> tuple[Float[Tensor, "points numbers"], Int[Tensor, " points"] | None]:
    """The points of the items that :meth:`ganlib.GAN.sample` draws for a seed, and their classes.

    Given classes are taken in turn.
    """
    sampler = space.model.sampler
    condition = None
    if space.model.label_share:
        turns = torch.arange(num_points)
        condition = sampler.labels(num_points, seed) if classes is None else classes[turns % len(classes)]
    return space.points(sampler.latents(num_points, seed, truncation), condition), condition


@torch.inference_mode()
def items_at(space: Space, points: Float[Tensor, "points numbers"], condition: Condition) -> Tensor:
    """The items of any number of points, on the CPU, in chunks of one size, the last filled up, as samples are made."""
    made, size, device = [], space.model.sampler.chunk_items, space.model.device
    for first in range(0, len(points), size):
        rows = torch.arange(first, first + size).clamp(max=len(points) - 1)
        known = None if condition is None else condition[rows].to(device)
        made.append(space.items(points[rows.to(points.device)].to(device), known).cpu()[: len(points) - first])
    return torch.cat(made)
