"""The discriminator should not mind small changes: of the items, or of the latents that they were made of."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.core import Augment, Batch, Change, Draws, GeneratorPenalty, Judge, Pair, Penalty, Verdict
from ganlib.errors import UsageError
from ganlib.penalties import Scalar

DISTURBED = "disturbed"
"""The name in ``Pair.extra`` of the fakes of disturbed latents; :class:`ganlib.tasks.wrapped.Disturbed` makes them."""


@dataclass(frozen=True)
class ShiftAndFlip(Augment):
    """A shift by up to `pixels` each way, edges repeated, and in half of the items left and right exchanged.

    The change of Zhang et al. 2020, arXiv:1910.12027.
    """

    pixels: int = 4

    def draw(self, items: Float[Tensor, "batch *item"], probability: Float[Tensor, ""], draws: Draws) -> Change:
        count, channels, height, width = items.shape
        at = items.device
        changed = draws.uniform(count) < probability
        down, right = (self._offset(draws.uniform(count)) * changed for _ in range(2))
        flipped = (draws.uniform(count) < 0.5) & changed
        rows = (torch.arange(height, device=at) + down[:, None]).clamp(0, height - 1)
        columns = (torch.arange(width, device=at) + right[:, None]).clamp(0, width - 1)
        columns = torch.where(flipped[:, None], width - 1 - columns, columns)
        item, channel = (
            torch.arange(count, device=at)[:, None, None, None],
            torch.arange(channels, device=at)[:, None, None],
        )
        return lambda given: given[item, channel, rows[:, None, :, None], columns[:, None, None, :]]

    def _offset(self, share: Tensor) -> Tensor:
        return (share * (2 * self.pixels + 1)).floor().long() - self.pixels


@dataclass(frozen=True)
class Consistency(Penalty):
    """E(D(x) - D(T(x)))², and the same of fakes. bCR; λ = 10. Zhao et al. 2020, arXiv:2002.04724.

    With ``fakes=False`` it is CR, Zhang et al. 2020, arXiv:1910.12027, which lets marks of T into the samples.
    """

    augment: Augment
    fakes: bool = True

    @property
    def double_backward(self) -> bool:
        return False

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        always = torch.ones((), device=pair.real.device)
        value = squared_change(real, judge(self.augment.draw(pair.real, always, draws)(pair.real)))
        if self.fakes:
            value = value + squared_change(fake, judge(self.augment.draw(pair.fake, always, draws)(pair.fake)))
        return value


@dataclass(frozen=True)
class LatentConsistency(Penalty):
    """E(D(G(z)) - D(G(z+δ)))². The discriminator's part of zCR; λ = 5. Zhao et al. 2020, arXiv:2002.04724."""

    @property
    def double_backward(self) -> bool:
        return False

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        return squared_change(fake, judge(_disturbed(pair)))


@dataclass(frozen=True)
class LatentVariety(GeneratorPenalty):
    """-E(G(z) - G(z+δ))², a mean over the numbers of an item. The generator's part of zCR; λ = 0.5.

    Zhao et al. 2020, arXiv:2002.04724. It has no lower bound but that of the items.
    """

    def __call__(
        self, generator: object, batch: Batch, pair: Pair, real: Verdict | None, fake: Verdict, draws: Draws
    ) -> Scalar:
        return -(pair.fake.float() - _disturbed(pair).float()).square().mean()


def squared_change(before: Verdict, after: Verdict) -> Scalar:
    """The mean squared difference of the logits of two verdicts, over heads."""
    pairs = zip(before.logits, after.logits, strict=True)
    return torch.stack([(first - second).square().mean() for first, second in pairs]).mean()


def _disturbed(pair: Pair) -> Tensor:
    if DISTURBED not in pair.extra:
        raise UsageError("consistency of latents needs the fakes of disturbed latents: wrap the task in Disturbed")
    return pair.extra[DISTURBED]
