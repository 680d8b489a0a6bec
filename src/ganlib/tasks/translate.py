"""A picture made of a picture, learned from pairs. Isola et al. 2017 (pix2pix), arXiv:1611.07004."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ganlib.core import Batch, Condition, Draws, Pair, Spec, Terms, Verdict
from ganlib.metrics.features import quantise
from ganlib.tasks.degrading import Degradation
from ganlib.tasks.enlarge import Maps, perceptual
from ganlib.tasks.from_pictures import FromPictures


@dataclass(frozen=True)
class Translate(FromPictures):
    """Real: the wanted picture. Fake: what the generator makes of the given one, which both are judged beside.

    Given are the pictures that come with the items, or else what `degradation` makes of the items. ``content`` is the
    mean absolute difference of fake and real, ``perceptual`` that of feature maps.
    """

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module | None]  # None where the terms alone are to teach
    degradation: Degradation | None = None
    maps: Maps | None = None

    def networks(self) -> tuple[nn.Module, nn.Module | None]:
        return self.make_generator(), self.make_discriminator()

    def given(self, spec: Spec) -> Spec:
        if self.degradation is not None:
            return self.degradation.given(spec)
        assert spec.condition is not None
        return spec.condition

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        if self.degradation is None:
            return batch
        given = quantise(self.degradation(batch["real"], draws))
        return {**batch, "condition": self.degradation.to_size(given)}

    def condition(self, batch: Batch, draws: Draws) -> Condition:
        return self.draw(batch, draws)["condition"]

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        return Pair(batch["real"], generator(batch["condition"]), batch["condition"])

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        return generator(items if self.degradation is None else self.degradation.to_size(items))

    def exhibit(self, pair: Pair) -> tuple[Tensor, ...]:
        assert pair.condition is not None
        return with_channels(pair.condition, pair.real.shape[1]), pair.fake, pair.real

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        terms = {"content": (pair.fake - pair.real).abs().mean()}
        return terms if self.maps is None else terms | {"perceptual": perceptual(self.maps, pair)}


def with_channels(items: Tensor, count: int) -> Tensor:
    """Pictures with another number of channels, for people to look at: grey for one, grey or cut for several."""
    if items.shape[1] == count:
        return items
    grey = items[:, :3].mean(1, keepdim=True)
    return grey.expand(-1, count, -1, -1) if items.shape[1] < count or count == 1 else items[:, :count]
