"""Autoencoders: an encoder and a decoder in one module, which is what the training calls the generator.

Convolutions without normalisation, whose statistics would be of codes in training and of latents in sampling; for
vectors and pictures of up to 12 pixels perceptrons.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE, WithClass, crop, pad, pyramid

PERCEPTRON_SIDE = 12
"""Pictures up to this side are encoded by perceptrons, like vectors."""
UNITS_PER_WIDTH = 16
"""Units of a perceptron's layer for each channel of the finest convolution."""


class Encoder(nn.Module):
    """From an item, and its class beside the features, to `num_outputs` numbers."""

    def __init__(self, shape: Sequence[int], *, num_outputs: int, width: int, num_classes: int = 0) -> None:
        super().__init__()
        self.size: tuple[int, int] | None = None
        if is_small(shape):
            units = UNITS_PER_WIDTH * width
            layers: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(shape), units), nn.LeakyReLU(SLOPE)]
            layers += [nn.Linear(units, units), nn.LeakyReLU(SLOPE)]
        else:
            doublings, rows, columns = pyramid(*shape[1:])
            self.size = (rows * 2**doublings, columns * 2**doublings)
            widths = [shape[0], *(width * 2 ** min(stage, 3) for stage in range(doublings))]
            pairs = list(itertools.pairwise(widths))
            layers = [part for a, b in pairs for part in (nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(SLOPE))]
            units = widths[-1] * rows * columns
            layers.append(nn.Flatten())
        self.layers = nn.Sequential(*layers)
        self.condition = WithClass(num_classes, 32)
        self.head = nn.Linear(units + self.condition.width, num_outputs)

    def forward(
        self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch outputs"]:
        features = self.layers(items if self.size is None else pad(items, *self.size))
        return self.head(self.condition(features, labels))


class Decoder(nn.Module):
    """From a code, and its class, to an item. No tanh: a mean beyond the ends makes black and white certain."""

    def __init__(self, shape: Sequence[int], *, latent: int, width: int, num_classes: int = 0) -> None:
        super().__init__()
        self.shape, self.small = tuple(shape), is_small(shape)
        self.condition = WithClass(num_classes, 32)
        inputs, self.grid = latent + self.condition.width, (0, 0, 0)
        if self.small:
            units = UNITS_PER_WIDTH * width
            layers: list[nn.Module] = [nn.Linear(inputs, units), nn.LeakyReLU(SLOPE), nn.Linear(units, units)]
            self.layers = nn.Sequential(*layers, nn.LeakyReLU(SLOPE), nn.Linear(units, math.prod(shape)))
            return
        doublings, rows, columns = pyramid(*shape[1:])
        widths = [width * 2 ** min(doublings - 1 - stage, 3) for stage in range(doublings)]
        self.grid = (widths[0], rows, columns)
        self.linear = nn.Linear(inputs, math.prod(self.grid))
        layers = [nn.LeakyReLU(SLOPE)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], shape[0], 4, 2, 1))

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *item"]:
        x = self.condition(latent, labels)
        if self.small:
            return self.layers(x).unflatten(1, self.shape)
        return crop(self.layers(self.linear(x).unflatten(1, self.grid)), self.shape[1], self.shape[2])


def is_small(shape: Sequence[int]) -> bool:
    """Whether a perceptron is enough: for vectors and tiny pictures."""
    return len(shape) == 1 or max(shape[1:]) <= PERCEPTRON_SIDE


class Autoencoder(nn.Module):
    """x̂ = dec(enc(x)). It has no prior: latents ε ~ N(0, I) become codes m + Lε, with mean m and covariance LLᵀ.

    Both are running moments of the codes, of which the newest batch counts a fiftieth; they are no weights.
    """

    moment: Tensor
    second_moment: Tensor

    def __init__(self, shape: Sequence[int], *, latent: int, width: int, num_classes: int = 0) -> None:
        super().__init__()
        self.encoder = Encoder(shape, num_outputs=latent, width=width, num_classes=num_classes)
        self.decoder = Decoder(shape, latent=latent, width=width, num_classes=num_classes)
        self.register_buffer("moment", torch.zeros(latent))
        self.register_buffer("second_moment", torch.eye(latent))

    def forward(
        self,
        latent: Float[Tensor, "batch latent"],
        labels: Int[Tensor, " batch"] | None = None,
        items: Float[Tensor, "batch *item"] | None = None,
    ) -> Float[Tensor, "batch *item"]:
        """Items of latents, or reconstructions where there are `items`; the latents are then ignored."""
        if items is None:
            return self.decoder(self.moment + latent @ self.factor().T, labels)
        code = self.encoder(items, labels)
        if self.training:
            self._remember(code.float())
        return self.decoder(code, labels)

    def factor(self) -> Float[Tensor, "latent latent"]:
        """L, with LLᵀ the covariance of the codes; a root by eigenvalues, since rounding may make some negative."""
        covariance = (self.second_moment - torch.outer(self.moment, self.moment)).cpu().double()
        values, vectors = torch.linalg.eigh(covariance)
        return (vectors * values.clamp(min=0).sqrt()).to(self.moment)

    @torch.no_grad()
    def _remember(self, code: Float[Tensor, "batch latent"]) -> None:
        with torch.autocast(code.device.type, enabled=False):
            self.moment.lerp_(code.mean(0), 0.02)
            self.second_moment.lerp_(code.T @ code / len(code), 0.02)


class Coded(NamedTuple):
    """What a variational autoencoder makes of items, and the numbers of q(z|x) = N(mean, exp(log_variance))."""

    items: Float[Tensor, "batch *item"]
    mean: Float[Tensor, "batch latent"]
    log_variance: Float[Tensor, "batch latent"]
    log_scale: Float[Tensor, " channels"]  # of the likelihood p(x|z), learned: one for each channel or column


class VariationalAutoencoder(nn.Module):
    """z = μ(x) + σ(x) ε, x̂ = dec(z); Kingma & Welling 2014, arXiv:1312.6114. Without items z = ε is the prior's."""

    def __init__(self, shape: Sequence[int], *, latent: int, width: int, num_classes: int = 0) -> None:
        super().__init__()
        self.encoder = Encoder(shape, num_outputs=2 * latent, width=width, num_classes=num_classes)
        self.decoder = Decoder(shape, latent=latent, width=width, num_classes=num_classes)
        self.log_scale = nn.Parameter(torch.full((shape[0],), -1.5))

    @overload
    def forward(self, latent: Tensor, labels: Tensor | None = None, items: None = None) -> Tensor: ...
    @overload
    def forward(self, latent: Tensor, labels: Tensor | None = None, *, items: Tensor) -> Coded: ...
    def forward(
        self,
        latent: Float[Tensor, "batch latent"],
        labels: Int[Tensor, " batch"] | None = None,
        items: Float[Tensor, "batch *item"] | None = None,
    ) -> Tensor | Coded:
        """Items of latents; where there are `items`, those of their codes, with the latents as ε."""
        if items is None:
            return self.decoder(latent, labels)
        mean, log_variance = self.encoder(items, labels).float().chunk(2, 1)
        code = mean + (0.5 * log_variance).exp() * latent
        return Coded(self.decoder(code, labels), mean, log_variance, self.log_scale)


class Routed(NamedTuple):
    """What a VAE/GAN makes of items. All three are `decoded` with the same weights."""

    reconstructed: Float[Tensor, "batch *item"]  # its gradient reaches the encoder, divided by γ
    judged: Float[Tensor, "batch *item"]  # the same numbers, whose gradient stops at the code
    drawn: Float[Tensor, "batch *item"]  # of codes of the prior
    mean: Float[Tensor, "batch latent"]
    log_variance: Float[Tensor, "batch latent"]


class AdversarialAutoencoder(nn.Module):
    """The generator of a VAE/GAN: a variational autoencoder whose losses reach the part that each is for.

    Larsen et al. 2016, arXiv:1512.09300, algorithm 1: the decoder learns from γ·similarity and the adversarial loss,
    the encoder from the similarity, not γ times it, and the divergence, and never from the adversarial loss.
    """

    def __init__(
        self, shape: Sequence[int], *, latent: int, width: int, gamma: float, num_classes: int = 0, bounded: bool = True
    ) -> None:
        super().__init__()
        self.encoder = Encoder(shape, num_outputs=2 * latent, width=width, num_classes=num_classes)
        self.decoder = Decoder(shape, latent=latent, width=width, num_classes=num_classes)
        self.gamma, self.bounded = gamma, bounded

    @overload
    def forward(self, latent: Tensor, labels: Tensor | None = None, items: None = None) -> Tensor: ...
    @overload
    def forward(
        self, latent: Tensor, labels: Tensor | None = None, *, items: Tensor, prior: Tensor | None = None
    ) -> Routed: ...
    def forward(
        self,
        latent: Float[Tensor, "batch latent"],
        labels: Int[Tensor, " batch"] | None = None,
        items: Float[Tensor, "batch *item"] | None = None,
        prior: Float[Tensor, "batch latent"] | None = None,
    ) -> Tensor | Routed:
        """Items of latents; where there are `items`, what :class:`Routed` says, of ε = `latent` and z = `prior`."""
        if items is None:
            return self._decoded(latent, labels)
        mean, log_variance = self.encoder(items, labels).float().chunk(2, 1)
        code = mean + (0.5 * log_variance).exp() * latent
        codes = torch.cat([_Scaled.apply(code, 1 / self.gamma), code.detach(), latent if prior is None else prior])  # type: ignore[list-item]
        first, second, third = self._decoded(codes, None if labels is None else labels.repeat(3)).chunk(3)
        return Routed(first, second, third, mean, log_variance)

    def _decoded(self, code: Tensor, labels: Tensor | None) -> Tensor:
        made = self.decoder(code, labels)
        return torch.tanh(made) if self.bounded else made


class _Scaled(torch.autograd.Function):
    """The same numbers; the gradient times a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class SimilarityDiscriminator(nn.Module):
    """A discriminator of the VAE/GAN: it judges the first two views of an item and has the features of the third.

    Views lie one after another along the first axis of an item. A plain item is all of them at once.
    """

    def __init__(self, judge: nn.Module, num_channels: int) -> None:
        super().__init__()
        self.judge, self.num_channels = judge, num_channels

    def forward(self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None) -> Verdict:
        views = items.split(self.num_channels, 1)
        many = None if labels is None else labels.repeat(len(views))
        verdict: Verdict = self.judge(torch.cat(views), many)
        logits = verdict.logits[0].chunk(len(views))
        return Verdict((logits[0], logits[1 if len(views) > 1 else 0]), (verdict.features[0].chunk(len(views))[-1],))
