"""Drawing items, judged by a discriminator that must also rebuild the real ones from its features."""

from dataclasses import dataclass

import torch

from ganlib.core import Pair, Terms, Verdict
from ganlib.tasks.generate import Generate


@dataclass(frozen=True)
class GenerateRebuilding(Generate):
    """The mean absolute difference of what the discriminator rebuilt of real items from what it should be.

    Liu et al. 2021, arXiv:2101.04775, equation 3. It is the term ``rebuilding`` of the discriminator's loss. The
    features of the verdict are what was rebuilt, each with its target after it.
    """

    def discriminator_terms(self, pair: Pair, real: Verdict, fake: Verdict) -> Terms:
        rebuilt, targets = real.features[::2], real.features[1::2]
        parts = [(a.float() - b.float()).abs().mean() for a, b in zip(rebuilt, targets, strict=True)]
        return {"rebuilding": torch.stack(parts).sum()}
