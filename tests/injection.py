"""Faults planted in a training at a known place: values that are not finite, and a generator that dies."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ganlib.core import AdversarialLoss, Batch, Draws, Objective, OptimiserSettings, Plan, constant
from ganlib.losses import RelativisticPairing
from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganlib.tasks.generate import Generate
from ganlib.training.guard import NonFinite, Trouble
from ganlib.training.loop import train
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create

PLACES = (
    "input",
    "discriminator loss",
    "generator loss",
    "discriminator gradient",
    "generator gradient",
    "discriminator weight",
    "generator weight",
    "discriminator buffer",
    "generator buffer",
    "average",
)
VALUES = (float("nan"), float("inf"), float("-inf"))
STEPS, BATCH, SHAPE = 12, 4, (1, 16, 16)


@dataclass
class Spoilt(AdversarialLoss):
    """A loss to which a number is added while it is armed, or whose gradients are."""

    loss: AdversarialLoss = field(default_factory=RelativisticPairing)
    armed: dict[str, float] = field(default_factory=dict)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.loss.discriminator(real, fake) + self.armed.get("discriminator", 0.0)

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return self.loss.generator(real, fake) + self.armed.get("generator", 0.0)


@dataclass(frozen=True)
class Planted:
    """A value at a place of a step, what was expected to be said of it, and what was."""

    step: int
    place: str
    value: float
    expected: tuple[str, str]
    trouble: Trouble | None
    late_steps: int
    updated: bool  # whether the network at fault was changed by the step

    @property
    def right(self) -> bool:
        """Caught in the same step, under the right name, before its update."""
        found = self.trouble
        return found is not None and (found.kind, found.name) == self.expected and not (self.late_steps or self.updated)


def tiny_plan(loss: AdversarialLoss) -> Plan:
    adam = OptimiserSettings(constant(1e-3), beta1=0.5, beta2=constant(0.9))
    return Plan(
        Generate(
            lambda: DCGANGenerator(SHAPE, latent=4, width=2, num_classes=3),
            lambda: DCGANDiscriminator(SHAPE, width=2, num_classes=3),
            4,
        ),
        Objective(loss),
        generator=adam,
        discriminator=adam,
        batch_items=BATCH,
        ema_halflife_items=constant(20.0),
        items=STEPS * BATCH,
    )


def plant(seed: int, place: str) -> Planted:
    """Train the tiny plan with one value planted at a place, at a step and an element that the seed chooses."""
    rng = torch.Generator().manual_seed(seed)
    step = int(torch.randint(STEPS - 2, (), generator=rng))
    value = VALUES[int(torch.randint(3, (), generator=rng))]
    loss = Spoilt()
    plan = tiny_plan(loss)
    state = create(plan, Runtime(), seed, plan.items)
    batches = [
        {"real": torch.randn(BATCH, *SHAPE, generator=rng), "label": torch.randint(3, (BATCH,), generator=rng)}
        for _ in range(STEPS)
    ]
    expected, before = ("", ""), {}
    reports = train(state, plan, iter(batches), Runtime(), seed)
    for number in range(STEPS):
        if number == step:
            expected = _spoil(state, loss, batches[number], place, value, rng)
        before = _copied(state)
        try:
            next(reports)
        except NonFinite as error:
            # A buffer of the discriminator is no part of its loss: only the generator's turn, later, looks at it.
            turn = "generator" if place[:9] == "generator" or place.endswith(("buffer", "average")) else "discriminator"
            after = _copied(state)[turn]
            updated = any(not torch.equal(after[k].nan_to_num(), v.nan_to_num()) for k, v in before[turn].items())
            return Planted(step, place, value, expected, error.trouble, number - step, updated)
    return Planted(step, place, value, expected, None, 0, True)


def _spoil(state: State, loss: Spoilt, batch: Batch, place: str, value: float, rng: torch.Generator) -> tuple[str, str]:
    """Plant the value; what should be said of it."""
    turn, _, what = place.partition(" ")
    if place == "input":
        _set_one(batch["real"], value, rng)
        return "input", "real"
    if what == "loss":
        loss.armed[turn] = value
        return "term", f"{turn}/adversarial"
    network = state.average if place == "average" else state.networks[turn]
    assert network is not None
    if what == "buffer":
        named = {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}
    else:
        named = dict(network.named_parameters())
    name = list(named)[int(torch.randint(len(named), (), generator=rng))]
    if what == "gradient":
        named[name].register_hook(_one_spoilt(value, rng))
        return "gradient", f"{turn}.{name}"
    with torch.no_grad():
        _set_one(named[name], value, rng)
    return "average" if place == "average" else what, f"{turn}.{name}"


def _one_spoilt(value: float, rng: torch.Generator) -> Callable[[Tensor], Tensor]:
    def spoilt(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        _set_one(gradient, value, rng)
        return gradient

    return spoilt


def _set_one(tensor: Tensor, value: float, rng: torch.Generator) -> None:
    place = torch.unravel_index(torch.randint(tensor.numel(), (), generator=rng), tensor.shape)
    tensor[place] = value


def _copied(state: State) -> dict[str, dict[str, Tensor]]:
    """The weights; buffers change with every pass."""
    networks = {name: network for name, network in state.networks.items() if network is not None}
    return {
        name: {key: weight.detach().clone() for key, weight in network.named_parameters()}
        for name, network in networks.items()
    }


class Mortal(nn.Module):
    """A generator whose samples are `num_points` points once its buffer says so; a copy and a checkpoint hold that."""

    dead: Tensor
    points: Tensor

    def __init__(self, alive: nn.Module, num_points: int, latent: int) -> None:
        super().__init__()
        self.alive = alive
        self.register_buffer("dead", torch.tensor(0))
        self.register_buffer("points", torch.randn(num_points, latent))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.dead:
            latent = self.points[torch.arange(len(latent)) % len(self.points)]
            labels = None if labels is None else torch.zeros_like(labels)
        return self.alive(latent, labels)


@dataclass(frozen=True)
class Dying(Generate):
    """Its generator dies at the given calls of draw."""

    deaths: Callable[[int], bool] = lambda call: False
    calls: list[int] = field(default_factory=lambda: [0])
    made: list[Any] = field(default_factory=list)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        pair = super().networks()
        self.made[:] = [*self.made, pair[0]][:1]  # a later one is only copied from
        return pair

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        self.calls[0] += 1
        if self.deaths(self.calls[0]):
            self.made[0].dead.fill_(1)
        return super().draw(batch, draws)
