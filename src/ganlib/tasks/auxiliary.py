"""Drawing items of a class that the discriminator does not see but guesses."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from ganlib.core import Pair, Terms, Verdict
from ganlib.tasks.generate import Generate


@dataclass(frozen=True)
class GenerateGuessed(Generate):
    """The discriminator says of real and fake which class they are of, the generator wants its own to be recognised.

    L_C = -log P(c | x), Odena et al. 2017, arXiv:1610.09585, equation 3; the terms are ``real_class`` and
    ``fake_class`` of the discriminator and ``class`` of the generator.
    """

    def discriminator_terms(self, pair: Pair, real: Verdict, fake: Verdict) -> Terms:
        return {"real_class": surprise(real, pair), "fake_class": surprise(fake, pair)}

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        return {"class": surprise(fake, pair)}


def surprise(verdict: Verdict, pair: Pair) -> Tensor:
    """-log P of the true class, the mean over the batch."""
    assert verdict.classes is not None and pair.condition is not None
    return cross_entropy(verdict.classes, pair.condition)
