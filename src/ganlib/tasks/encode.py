"""Making items of their codes: autoencoders, plain, variational, and with a discriminator."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ganlib.core import Batch, Condition, Draws, Pair, Terms, Verdict
from ganlib.likelihoods import discretised_logistic, divergence_from_prior, gaussian
from ganlib.metrics.features import quantise
from ganlib.networks.autoencoder import Coded, Routed
from ganlib.tasks.generate import Generate


@dataclass(frozen=True)
class Reconstruct(Generate):
    """Fake: the reconstruction of the real item. The generator's only term is the mean squared error."""

    transforms: ClassVar[bool] = True

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        real, label = batch["real"], batch.get("label")
        return Pair(real, generator(batch["latent"], label, items=real), label)

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        return generator(_no_noise(self, items), condition, items=items)

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        return {"reconstruction": (pair.fake - pair.real).float().square().mean()}


@dataclass(frozen=True)
class Variational(Generate):
    """The evidence lower bound of a variational autoencoder, in bits for each number of an item.

    -log₂ p(x) <= (-E log p(x|z) + KL(q(z|x) ‖ p(z))) / ln 2, with one z for each item; divided by the numbers of an
    item that is the sum of the terms ``reconstruction`` and ``divergence``, logged as ``bits_per_dimension``, whatever
    they weigh in the loss. Kingma & Welling 2014, arXiv:1312.6114.

    Pictures are rounded to 8 bits, and their likelihood is the discretised logistic with a learned scale for each
    channel: a probability of the 256 levels, so that the bits are an upper bound on what storing the picture takes.
    Vectors have a Gaussian density in standardised units, whose bits may be negative and compare only with themselves.
    """

    transforms: ClassVar[bool] = True
    likelihood: Literal["pictures", "vectors"] = "pictures"

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        label = batch.get("label")
        real = quantise(batch["real"]) if self.likelihood == "pictures" else batch["real"]
        made: Coded = generator(batch["latent"], label, items=real)  # type: ignore[assignment]
        extra = {"mean": made.mean, "log_variance": made.log_variance, "log_scale": made.log_scale}
        return Pair(real, made.items, label, extra)

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        made: Coded = generator(_no_noise(self, items), condition, items=items)  # type: ignore[assignment]
        return made.items

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        log_likelihood = discretised_logistic if self.likelihood == "pictures" else gaussian
        bits = math.log(2) * pair.real[0].numel()
        with torch.autocast(pair.real.device.type, enabled=False):
            reconstruction = -log_likelihood(pair.real, pair.fake.float(), pair.extra["log_scale"]).mean() / bits
            divergence = divergence_from_prior(pair.extra["mean"], pair.extra["log_variance"]).mean() / bits
        together = (reconstruction + divergence).detach()
        return {"reconstruction": reconstruction, "divergence": divergence, "bits_per_dimension": together}


@dataclass(frozen=True)
class Resemble(Generate):
    """A VAE/GAN. Larsen et al. 2016, arXiv:1512.09300: items are alike where the discriminator's features are.

    Fake: the reconstruction to be judged, a sample of the prior, and the reconstruction to be compared, as views of one
    item (:class:`ganlib.networks.autoencoder.SimilarityDiscriminator`); real: the plain item. ``similarity`` is half
    the squared distance of features, ``divergence`` that of the code; both divided by the numbers of an item. The
    features count in units of their deviation over the batch: the paper's are batch normalised, ours are not.
    """

    transforms: ClassVar[bool] = True
    generator_sees_real: ClassVar[bool] = True

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        return super().draw(batch, draws) | {"prior": self.latent(len(batch["real"]), draws)}

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        real, label = batch["real"], batch.get("label")
        made: Routed = generator(batch["latent"], label, items=real, prior=batch["prior"])  # type: ignore[assignment]
        fake = torch.cat([made.judged, made.drawn, made.reconstructed], 1)
        return Pair(real, fake, label, {"mean": made.mean, "log_variance": made.log_variance})

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        made: Routed = generator(_no_noise(self, items), condition, items=items)  # type: ignore[assignment]
        return made.reconstructed

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        assert real is not None
        numbers, wanted = pair.real[0].numel(), real.features[0].detach().float()
        # A hundredth of the square beside the variance, which a batch of one item does not have.
        scale = wanted.var(0, correction=0).mean() + 0.01 * wanted.square().mean() + 1e-12
        distance = (fake.features[0].float() - wanted).square().flatten(1).sum(1) / scale
        divergence = divergence_from_prior(pair.extra["mean"], pair.extra["log_variance"])
        return {"similarity": 0.5 * distance.mean() / numbers, "divergence": divergence.mean() / numbers}


def _no_noise(task: Generate, items: Tensor) -> Tensor:
    """Latents of zero: reconstructions are of the mean of the code."""
    return items.new_zeros(len(items), task.latent_width)
