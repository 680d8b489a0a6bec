"""Tasks around another task: with other networks, or with the fakes of disturbed latents beside the fakes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ganlib.core import Batch, Condition, Draws, Pair, Spec, Task, Terms, Verdict
from ganlib.errors import UsageError
from ganlib.penalties.consistency import DISTURBED


class _Around(Task):
    """Everything as the task has it."""

    task: Task

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator_sees_real", self.task.generator_sees_real)
        object.__setattr__(self, "draws", self.task.draws)
        object.__setattr__(self, "transforms", self.task.transforms)
        object.__setattr__(self, "domains", self.task.domains)
        object.__setattr__(self, "one_way", self.task.one_way)
        object.__setattr__(self, "directions", self.task.directions)
        object.__setattr__(self, "any_size", self.task.any_size)

    def networks(self) -> tuple[nn.Module, nn.Module | None]:
        return self.task.networks()

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        return self.task.draw(batch, draws)

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        return self.task.pair(generator, batch)

    def condition(self, batch: Batch, draws: Draws) -> Condition:
        return self.task.condition(batch, draws)

    def given(self, spec: Spec) -> Spec:
        return self.task.given(spec)

    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> Tensor:
        return self.task.sample(generator, latent, condition)

    def latent(self, num_items: int, draws: Draws) -> Tensor:
        return self.task.latent(num_items, draws)

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        return self.task.transform(generator, items, condition)

    def exhibit(self, pair: Pair) -> tuple[Tensor, ...]:
        return self.task.exhibit(pair)

    def discriminator_terms(self, pair: Pair, real: Verdict, fake: Verdict) -> Terms:
        return self.task.discriminator_terms(pair, real, fake)

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        return self.task.generator_terms(pair, real, fake)


@dataclass(frozen=True)
class WithNetworks(_Around):
    """A task with networks made of its own."""

    task: Task
    change: Callable[[nn.Module, nn.Module], tuple[nn.Module, nn.Module]]

    def networks(self) -> tuple[nn.Module, nn.Module]:
        generator, discriminator = self.task.networks()
        if discriminator is None:
            raise UsageError("this recipe has no discriminator that could be changed")
        return self.change(generator, discriminator)


@dataclass(frozen=True)
class Disturbed(_Around):
    """The pair of a task, with G(z+δ) in ``extra``, δ ~ N(0, σ²). Zhao et al. 2020, arXiv:2002.04724."""

    task: Task
    sigma: float = 0.03

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        drawn = self.task.draw(batch, draws)
        if "latent" not in drawn:
            raise UsageError("consistency of latents is for generators of a latent; this one is given none")
        return {**drawn, "latent_noise": draws.normal(*drawn["latent"].shape)}

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        pair = self.task.pair(generator, batch)
        near = {**batch, "latent": batch["latent"] + self.sigma * batch["latent_noise"]}
        return replace(pair, extra={**pair.extra, DISTURBED: self.task.pair(generator, near).fake})
