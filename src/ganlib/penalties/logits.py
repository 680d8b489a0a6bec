"""Penalties of the logits themselves, and not of their slope."""

from dataclasses import dataclass
from typing import final

from ganlib.core import Draws, Judge, Pair, Penalty, Verdict
from ganlib.penalties import Scalar, item_logits


@final
@dataclass(frozen=True)
class Drift(Penalty):
    """E[D(x)²] on real items, which keeps the free level of a critic near zero; ε = 0.001.

    Karras et al. 2018, arXiv:1710.10196.
    """

    @property
    def double_backward(self) -> bool:
        return False

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        return item_logits(real).square().mean()
