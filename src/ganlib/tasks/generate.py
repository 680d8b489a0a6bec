"""Drawing items from nothing but a latent, and a class where there are classes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ganlib.core import Batch, Condition, Draws, Pair, Task


@dataclass(frozen=True)
class Generate(Task):
    """Real: the data. Fake: the generator's, of the class of the real item beside it: a pair shares its condition."""

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module | None]  # None for a comparator without an adversary
    latent_width: int

    def networks(self) -> tuple[nn.Module, nn.Module | None]:
        return self.make_generator(), self.make_discriminator()

    def latent(self, num_items: int, draws: Draws) -> Tensor:
        return draws.normal(num_items, self.latent_width)

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        return {**batch, "latent": self.latent(len(batch["real"]), draws)}

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        label = batch.get("label")
        return Pair(batch["real"], generator(batch["latent"], label), label)

    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> Tensor:
        return generator(latent, condition)
