"""The vocabulary of ganlib. Read this first, then ``training/step.py``.

Time is counted in items seen, never in epochs or steps. A batch is a dictionary of tensors. Every task reduces to a
:class:`Pair`; every discriminator answers with a :class:`Verdict`; every loss is a dictionary of named :data:`Terms`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ganlib.errors import UsageError
from ganlib.spec import Spec

Batch = dict[str, Tensor]
"""What the data layer hands over: ``real``, ``label`` where there are classes, ``condition`` where the data are pairs,
``attributes`` [batch, attributes] where they have some, and what a task draws (``latent``)."""

Terms = dict[str, Tensor]
"""Named scalar parts of a loss. The name is the log key and the weight key."""

Condition = Tensor | None
"""All that is known besides the latent: class numbers, a source image, a mel spectrogram; None where nothing is."""


@dataclass(frozen=True)
class Pair:
    """What is real and what is fake, item by item under the same condition."""

    real: Tensor
    fake: Tensor
    condition: Condition = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)  # what the task's own terms need besides


@dataclass(frozen=True)
class Verdict:
    """What a discriminator says: logits of each head, [batch] or [batch, ...]; features and class logits if any."""

    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...] = ()
    classes: Tensor | None = None


Judge = Callable[[Tensor], Verdict]
"""The discriminator with its condition and augmentation filled in: raw data in, verdict out."""

Change = Callable[[Tensor], Tensor]
"""One draw of an augmentation for the items of a batch; differentiable twice."""


@final
@dataclass(frozen=True)
class Draws:
    """Random numbers for the rows of a batch that this process has, of `world` processes that share the batch.

    Each draws for the whole batch and keeps every `world`-th row from `rank` on, so that together they hold the numbers
    that one process alone would have drawn. The first number of a shape is that of the own rows.
    """

    generator: torch.Generator
    rank: int = 0
    world: int = 1

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal numbers, on the generator's device."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._own(torch.randn(whole, generator=self.generator, device=self.generator.device, dtype=dtype))

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Numbers from 0 to below 1, on the generator's device."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._own(torch.rand(whole, generator=self.generator, device=self.generator.device, dtype=dtype))

    def _own(self, whole: Tensor) -> Tensor:
        return whole if self.world == 1 else whole[self.rank :: self.world].contiguous()


@dataclass(frozen=True)
class Schedule:
    """A number that moves from `start` to `end` between two shares of the run, by half a cosine or a line."""

    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0
    shape: Literal["cosine", "linear"] = "cosine"

    def __call__(self, items_seen: int, total_items: int) -> float:
        """The value after `items_seen` of `total_items`."""
        progress = items_seen / max(total_items, 1)
        share = min(max((progress - self.begin) / max(self.until - self.begin, 1e-12), 0.0), 1.0)
        if self.shape == "cosine":
            share = 0.5 - 0.5 * math.cos(math.pi * share)
        return self.start + (self.end - self.start) * share


def constant(value: float) -> Schedule:
    """A schedule that does not move."""
    return Schedule(value, value)


class AdversarialLoss(ABC):
    """Two pure functions of the logits of one head. Both see the real and the fake logits, paired item by item."""

    generator_sees_real: ClassVar[bool] = True
    """False where the generator's loss ignores the real logits, which saves their computation."""

    @abstractmethod
    def discriminator(
        self, real: Float[Tensor, "batch *patch"], fake: Float[Tensor, "batch *patch"]
    ) -> Float[Tensor, ""]:
        """What the discriminator minimises."""

    @abstractmethod
    def generator(
        self, real: Float[Tensor, "batch *patch"] | None, fake: Float[Tensor, "batch *patch"]
    ) -> Float[Tensor, ""]:
        """What the generator minimises. `real` is None only where :attr:`generator_sees_real` is False."""


class Penalty(ABC):
    """A regulariser of the discriminator, differentiated to the raw data."""

    @property
    @abstractmethod
    def double_backward(self) -> bool:
        """True where the value holds a derivative of the discriminator, so that its gradient differentiates twice."""

    @abstractmethod
    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Float[Tensor, ""]:
        """Its value, a mean over the batch. `real` and `fake` are the verdicts on ``pair.real`` and ``pair.fake``.

        Where :attr:`double_backward` is True those two require a gradient, and nothing runs compiled or in bfloat16.
        """


class GeneratorPenalty(ABC):
    """A regulariser of the generator, in its own turn; the discriminator is frozen meanwhile."""

    sees_real: ClassVar[bool] = False
    """True where it looks at the verdict on the real items, which otherwise may be None."""

    @abstractmethod
    def __call__(
        self,
        generator: Callable[..., Tensor],
        batch: Batch,
        pair: Pair,
        real: Verdict | None,
        fake: Verdict,
        draws: Draws,
    ) -> Float[Tensor, ""]:
        """Its value. `batch` is what the task has drawn, of which `pair` was made. All in float32, uncompiled."""


class WeightPenalty(ABC):
    """A regulariser of the weights of either network, whatever the data."""

    @abstractmethod
    def __call__(self, network: nn.Module) -> Float[Tensor, ""]:
        """Its value."""


class Augment(ABC):
    """A random change of the items that the discriminator sees, real and fake alike."""

    @abstractmethod
    def draw(self, items: Float[Tensor, "batch *item"], probability: Float[Tensor, ""], draws: Draws) -> Change:
        """The change of a batch of items like these, each of them with that probability.

        It is called on the real items, on the fake ones beside them, and on what a penalty makes of either.
        """


class Grows(ABC):
    """A network that depends on how far the training is. What :meth:`grow` sets is kept in integer buffers."""

    @abstractmethod
    def grow(self, items_seen: int, total_items: int) -> None:
        """Called before each step, on the moving average too."""


class Constraint(ABC):
    """A condition on the discriminator's weights, restored after each of its updates."""

    @abstractmethod
    def __call__(self, discriminator: nn.Module) -> None:
        """Change the weights in place so that they satisfy the condition."""


class Task(ABC):
    """Which networks, what is real and what is fake under which condition, and how to sample."""

    generator_sees_real: ClassVar[bool] = False
    """True where :meth:`generator_terms` looks at the verdict on the real items."""

    draws: ClassVar[bool] = True
    """False where nothing can be drawn, since there are no latents: the generator makes items of items alone."""

    transforms: ClassVar[bool] = False
    """True where :meth:`transform` makes items of items."""

    domains: ClassVar[int] = 0
    """Of how many sets are, row by row in turn, what is made and the real items beside it, where those are no partners;
    0 where what is made of an item is meant to be that item."""

    one_way: ClassVar[bool] = False
    """True where items of the first of two sets become such of the second: one is made of each two rows of a batch."""

    directions: ClassVar[tuple[str, ...]] = ()
    """Which ways :meth:`transform` goes between two sets of pictures: ``AtoB``, ``BtoA``."""

    any_size: ClassVar[bool] = False
    """True where :meth:`transform` takes pictures of any size."""

    @abstractmethod
    def networks(self) -> tuple[nn.Module, nn.Module | None]:
        """A new generator and discriminator; no discriminator for a comparator without an adversary."""

    @abstractmethod
    def draw(self, batch: Batch, draws: Draws) -> Batch:
        """The batch together with all that the task draws at random, so that :meth:`pair` is a pure function."""

    @abstractmethod
    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        """What is real and what is fake."""

    def condition(self, batch: Batch, draws: Draws) -> Condition:
        """What the discriminator is told of the real items of a batch: their classes, unless a task says otherwise."""
        return batch.get("label")

    @abstractmethod
    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> Tensor:
        """Items for given latents and conditions, in the numbers of the networks."""

    @abstractmethod
    def latent(self, num_items: int, draws: Draws) -> Tensor:
        """Random inputs of the generator. Raises :class:`UsageError` where :attr:`draws` is False."""

    def given(self, spec: Spec) -> Spec:
        """What :meth:`transform` takes, where the items are of `spec`: such items, unless a task says otherwise."""
        return spec

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        """Items made of items: reconstructed, enlarged. Raises :class:`UsageError` unless a task says otherwise."""
        raise UsageError("this generator makes items of latents, not of items; give latents [items, latent]")

    def exhibit(self, pair: Pair) -> tuple[Tensor, ...]:
        """What to show side by side of each item where nothing can be drawn, all in the shape of an item.

        The first is what it was made of, where that has no partner (:attr:`domains`).
        """
        return pair.fake, pair.real

    def discriminator_terms(self, pair: Pair, real: Verdict, fake: Verdict) -> Terms:
        """Further terms of the discriminator's loss; none unless a task says otherwise."""
        return {}

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        """Further terms of the generator's loss; none unless a task says otherwise."""
        return {}


@dataclass(frozen=True)
class WeightedPenalty:
    """A penalty, its weight, and how often it is applied. One that remembers is a module: its buffers are saved.

    Applied in every `every_steps`-th step with `every_steps` times the weight, inside the same update as the other
    terms, its mean is that of applying it always; the optimiser needs no correction since it takes as many steps.
    """

    penalty: Penalty | GeneratorPenalty | WeightPenalty
    weight: Schedule
    every_steps: int = 1


@dataclass(frozen=True)
class Objective:
    """The adversarial loss, the penalties by name, the weights of the task's own terms by name, the constraints."""

    loss: AdversarialLoss | None  # None for a comparator without an adversary
    penalties: Mapping[str, WeightedPenalty] = field(default_factory=dict)  # of the discriminator
    weights: Mapping[str, Schedule] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    generator_penalties: Mapping[str, WeightedPenalty] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {"adversarial", *self.penalties, *self.generator_penalties}
        twice = names & self.weights.keys() | {"adversarial"} & {*self.penalties, *self.generator_penalties}
        if twice:
            raise ValueError(f"{sorted(twice)} have a weight already; give the task's terms names of their own")


@dataclass(frozen=True)
class OptimiserSettings:
    """An optimiser by name and its numbers; those that move are schedules. `beta1` is the momentum of ``sgd``."""

    learning_rate: Schedule
    kind: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    beta1: float = 0.0
    beta2: Schedule = field(default_factory=lambda: constant(0.99))
    epsilon: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """What the discriminator sees changed, and how often: by a schedule, or as much as keeps it from overfitting.

    With a `target` the probability rises by a step's items over `rise_items` while the mean sign of the real logits is
    above it, and falls while it is below: ADA, Karras et al. 2020, arXiv:2006.06676. A loss that compares real and fake
    logits leaves their level free; there the sign is that of the real logit less the fake one beside it.

    With `pseudo` fakes stand in for real items with that probability: APA, Jiang et al. 2021, arXiv:2111.06849.
    """

    augment: Augment | None
    probability: Schedule = field(default_factory=lambda: constant(1.0))  # at the start only, where there is a target
    target: float | None = None
    rise_items: int = 500_000
    most: float = 1.0
    pseudo: bool = False


@dataclass(frozen=True)
class FakeBuffer:
    """Earlier fakes that the discriminator's turn judges in place of some new ones, so that it does not forget them.

    Of each of so many `conditions` (classes or domains; 1 without any) so many `items` are kept. Once there are, a new
    fake is exchanged for one of them with the probability `share`. Shrivastava et al. 2017, arXiv:1612.07828, section
    2.3, which exchanges half of each batch; Zhu et al. 2017, arXiv:1703.10593, section 4, which keeps 50.
    """

    items: int = 50
    conditions: int = 1
    share: float = 0.5


Action = Literal["note", "rollback", "stop"]
"""Say it and go on; return to the last healthy checkpoint with other randomness and lower rates; end the training."""


@dataclass(frozen=True)
class Health:
    """What a training does about values that are not finite, and about a collapse or divergence of its samples.

    A step with such a value is left out in any case. A rollback follows `skips` of them in a row, or a hurt weight.
    """

    nonfinite: Action = "rollback"
    collapse: Action = "rollback"
    skips: int = 3
    rollbacks: int = 3  # because of values that are not finite; where they are used up, the training stops
    collapse_rollbacks: int = 2  # where they are used up, the training goes on with a note
    rate_factor: float = 0.5  # of both learning rates, at each rollback


@dataclass(frozen=True)
class Plan:
    """All that one training needs besides data and device: a recipe made concrete for a setting."""

    task: Task
    objective: Objective
    generator: OptimiserSettings
    discriminator: OptimiserSettings
    batch_items: int
    ema_halflife_items: Schedule
    items: int  # worth seeing where no budget is given
    discriminator_steps: int = 1  # updates of the discriminator per update of the generator, each on items of its own
    accumulate: int = 1  # micro-batches that make one batch
    reuse_fakes: bool = True  # the generator's turn judges the fakes of the discriminator's turn again
    mixed_precision: bool = True  # False where eight bits of a number would be too few, as in vectors
    health: Health = field(default_factory=Health)
    augmentation: Augmentation | None = None
    fake_buffer: FakeBuffer | None = None
    balanced: bool = False  # batches hold as many items of each class, one of each in turn
    joint_verdicts: bool = False  # one pass over real and fake together; right only where no layer mixes items
    top_share: Schedule = field(default_factory=lambda: constant(1.0))  # of the fakes, the best: the generator's loss
    unrolled_steps: int = 0  # virtual updates of the discriminator before the generator's turn
    pretraining: float = 0.0  # share of the run first, in which the generator learns the task's own terms alone
    notes: Mapping[str, Any] = field(default_factory=dict)  # what the recipe chose, for people to read
