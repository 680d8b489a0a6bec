"""What the generator may aim at besides the verdict."""

from dataclasses import dataclass

import torch

from ganlib.core import Batch, Draws, GeneratorPenalty, Pair, Verdict
from ganlib.errors import UsageError
from ganlib.penalties import Scalar


@dataclass(frozen=True)
class FeatureMatching(GeneratorPenalty):
    """‖E f(x) - E f(G(z))‖², f the discriminator's last features. Salimans et al. 2016, arXiv:1606.03498.

    The paper trains the generator on it alone; here it stands beside the adversarial term.
    """

    sees_real = True

    def __call__(
        self, generator: object, batch: Batch, pair: Pair, real: Verdict | None, fake: Verdict, draws: Draws
    ) -> Scalar:
        if real is None or not real.features or not fake.features:
            raise UsageError("feature matching needs a discriminator whose verdict has features; this one has none")
        return (real.features[-1].float().mean(0) - fake.features[-1].float().mean(0)).square().sum()


@dataclass(frozen=True)
class PairedFeatures(GeneratorPenalty):
    """Σ over layers of E|fᵢ(x) - fᵢ(G)|, fᵢ the discriminator's features of the wanted picture and of the one made.

    Wang et al. 2018 (pix2pixHD), arXiv:1711.11585, equation 4: item by item, where both are of one pair.
    """

    sees_real = True

    def __call__(
        self, generator: object, batch: Batch, pair: Pair, real: Verdict | None, fake: Verdict, draws: Draws
    ) -> Scalar:
        if real is None or not real.features or not fake.features:
            raise UsageError("feature matching needs a discriminator whose verdict has features; this one has none")
        apart = [(f.float() - r.float()).abs().mean() for r, f in zip(real.features, fake.features, strict=True)]
        return torch.stack(apart).sum()
