"""Two sets of pictures into each other, without partners. Zhu et al. 2017 (CycleGAN), arXiv:1703.10593."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ganlib.core import Batch, Condition, Draws, Pair, Terms, Verdict
from ganlib.errors import UsageError
from ganlib.tasks.from_pictures import FromPictures


@dataclass(frozen=True)
class Cycle(FromPictures):
    """Real: an item of each domain. Fake: what the generator into that domain makes of the one beside it.

    A batch holds one item of each of two domains in turn (``Plan.balanced``); the condition of an item is its domain.
    ``cycle`` is the mean absolute difference between an item and its way there and back, ``identity`` that between an
    item and what the generator into its own domain makes of it.
    """

    domains: ClassVar[int] = 2
    directions: ClassVar[tuple[str, ...]] = ("AtoB", "BtoA")

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module]
    identity: bool = True

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.make_generator(), self.make_discriminator()

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        return batch

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        given, domain = batch["real"], batch["label"]
        target = beside(domain)
        fake = generator(given, target)
        extra = {"given": given, "cycle": generator(fake, domain)}
        if self.identity:
            extra["same"] = generator(given, domain)
        return Pair(beside(given), fake, target, extra)

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        if condition is None:
            raise UsageError("say into which of the two domains: labels, or a direction")
        return generator(items, condition)

    def exhibit(self, pair: Pair) -> tuple[Tensor, ...]:
        return pair.extra["given"], pair.fake, pair.extra["cycle"]

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        given = pair.extra["given"]
        terms = {"cycle": (pair.extra["cycle"].float() - given).abs().mean()}
        return terms | ({"identity": (pair.extra["same"].float() - given).abs().mean()} if self.identity else {})


def beside(rows: Tensor) -> Tensor:
    """The rows with each two that stand beside each other exchanged: of the other domain, in a balanced batch."""
    return rows.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
