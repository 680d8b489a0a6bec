"""Adversarial losses: pairs of pure functions of the logits of one head. Usable alone.

σ is the logistic function, r and f are the logits D(x) and D(G(z)); -log σ(a) is written softplus(-a).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu, softplus

from ganlib.core import AdversarialLoss

Logits = Float[Tensor, "batch *patch"]
Scalar = Float[Tensor, ""]


def _cross_entropy_of_real(real: Tensor, target: float) -> Tensor:
    """-t log σ(r) - (1-t) log(1-σ(r)); t < 1 is one-sided label smoothing (Salimans et al. 2016, arXiv:1606.03498)."""
    loss = softplus(-real)
    return (loss if target == 1.0 else target * loss + (1 - target) * softplus(real)).mean()


@dataclass(frozen=True)
class Minimax(AdversarialLoss):
    """D: -log σ(r) - log(1-σ(f)); G: log(1-σ(f)). Goodfellow et al. 2014, arXiv:1406.2661, equation 1."""

    real_target: float = 1.0
    generator_sees_real = False

    def discriminator(self, real: Logits, fake: Logits) -> Scalar:
        return _cross_entropy_of_real(real, self.real_target) + softplus(fake).mean()

    def generator(self, real: Logits | None, fake: Logits) -> Scalar:
        return -softplus(fake).mean()


@dataclass(frozen=True)
class NonSaturating(AdversarialLoss):
    """D as minimax; G: -log σ(f), whose gradient does not vanish. Goodfellow et al. 2014, arXiv:1406.2661."""

    real_target: float = 1.0
    generator_sees_real = False

    def discriminator(self, real: Logits, fake: Logits) -> Scalar:
        return _cross_entropy_of_real(real, self.real_target) + softplus(fake).mean()

    def generator(self, real: Logits | None, fake: Logits) -> Scalar:
        return softplus(-fake).mean()


@dataclass(frozen=True)
class LeastSquares(AdversarialLoss):
    """D: ½(r-1)² + ½f²; G: ½(f-1)². Mao et al. 2017, arXiv:1611.04076, equation 9; `real_target` smooths D's 1."""

    real_target: float = 1.0
    generator_sees_real = False

    def discriminator(self, real: Logits, fake: Logits) -> Scalar:
        return 0.5 * (real - self.real_target).square().mean() + 0.5 * fake.square().mean()

    def generator(self, real: Logits | None, fake: Logits) -> Scalar:
        return 0.5 * (fake - 1).square().mean()


@dataclass(frozen=True)
class Hinge(AdversarialLoss):
    """D: max(0, 1-r) + max(0, 1+f); G: -f. Lim & Ye 2017, arXiv:1705.02894."""

    generator_sees_real = False

    def discriminator(self, real: Logits, fake: Logits) -> Scalar:
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, real: Logits | None, fake: Logits) -> Scalar:
        return -fake.mean()


@dataclass(frozen=True)
class Wasserstein(AdversarialLoss):
    """D: f - r; G: -f. Arjovsky et al. 2017, arXiv:1701.07875. Needs a Lipschitz discriminator."""

    generator_sees_real = False

    def discriminator(self, real: Logits, fake: Logits) -> Scalar:
        return fake.mean() - real.mean()

    def generator(self, real: Logits | None, fake: Logits) -> Scalar:
        return -fake.mean()


@dataclass(frozen=True)
class RelativisticPairing(AdversarialLoss):
    """D: -log σ(r-f); G: -log σ(f-r), item by item.

    Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441.
    """

    def discriminator(self, real: Logits, fake: Logits) -> Scalar:
        return softplus(fake - real).mean()

    def generator(self, real: Logits | None, fake: Logits) -> Scalar:
        assert real is not None
        return softplus(real - fake).mean()


@dataclass(frozen=True)
class RelativisticAverage(AdversarialLoss):
    """D: -log σ(r-E f) - log(1-σ(f-E r)); G the same with real and fake exchanged.

    Jolicoeur-Martineau 2018, arXiv:1807.00734. E is the batch mean: micro-batches are not one large batch here.
    """

    def discriminator(self, real: Logits, fake: Logits) -> Scalar:
        return softplus(fake.mean(0) - real).mean() + softplus(fake - real.mean(0)).mean()

    def generator(self, real: Logits | None, fake: Logits) -> Scalar:
        assert real is not None
        return softplus(real.mean(0) - fake).mean() + softplus(real - fake.mean(0)).mean()
