"""Penalties that remember: of logits, of weights, of slopes. What they know is saved with the state."""

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from ganlib.core import Batch, Draws, GeneratorPenalty, Judge, Pair, Penalty, Verdict, WeightPenalty
from ganlib.penalties import Scalar, item_logits, over_processes


@final
class LeCam(Penalty, nn.Module):
    """E(D(x) - α_F)² + E(D(G(z)) - α_R)², α moving means of the logits of real and fake items.

    Tseng et al. 2021, arXiv:2104.03310, equation 5; λ = 0.3 for BigGAN. The half-life is in items: the paper's decay
    of 0.99 in a batch of 64. Until so many items are seen the means are plain ones, where the paper begins at 0.
    """

    seen: Tensor
    real_mean: Tensor
    fake_mean: Tensor

    def __init__(self, halflife_items: float = 4400.0) -> None:
        super().__init__()
        self.halflife_items = halflife_items
        for name in ("seen", "real_mean", "fake_mean"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def double_backward(self) -> bool:
        return False

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        of_real, of_fake = item_logits(real), item_logits(fake)
        real_now, fake_now = over_processes(torch.stack([of_real.mean(), of_fake.mean()]), draws)
        self._remember(real_now, fake_now, len(of_real) * draws.world)
        # Copies: what the next micro-batch makes of the memory must not reach into this one's graph.
        real_mean, fake_mean = self.real_mean.clone(), self.fake_mean.clone()
        return (of_real - fake_mean).square().mean() + (of_fake - real_mean).square().mean()

    def _remember(self, real: Tensor, fake: Tensor, num_items: int) -> None:
        # A step with a number that is not finite is left out; the memory must not keep it either.
        finite = real.isfinite() & fake.isfinite()
        self.seen += num_items * finite
        share = torch.maximum(num_items / self.seen.clamp_min(1), 1 - 0.5 ** (num_items / self._halflife))
        self.real_mean.copy_(torch.where(finite, torch.lerp(self.real_mean, real, share), self.real_mean))
        self.fake_mean.copy_(torch.where(finite, torch.lerp(self.fake_mean, fake, share), self.fake_mean))

    @property
    def _halflife(self) -> Tensor:
        return torch.tensor(self.halflife_items, device=self.seen.device)


@final
class HistoricalAverage(WeightPenalty, nn.Module):
    """‖θ - (1/t) Σ θ[i]‖², the sum over the t updates before this one. Salimans et al. 2016, arXiv:1606.03498.

    `network` gives the shapes; the memory is as large as its weights.
    """

    num_updates: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("num_updates", torch.zeros(()))
        self.means = nn.Module()
        for number, weight in enumerate(network.parameters()):
            self.means.register_buffer(str(number), torch.zeros_like(weight, requires_grad=False))

    def __call__(self, network: nn.Module) -> Scalar:
        weights, means = list(network.parameters()), list(self.means.buffers())
        known = (self.num_updates > 0).float()  # nothing is far from a history that has not begun
        squares = [(weight - mean.clone()).square().sum() for weight, mean in zip(weights, means, strict=True)]
        value = known * torch.stack(squares).sum()
        with torch.no_grad():
            self.num_updates += 1
            for weight, mean in zip(weights, means, strict=True):
                mean += (weight - mean) / self.num_updates
        return value


@final
class PathLength(GeneratorPenalty, nn.Module):
    """E(‖Jᵀy‖ - a)², J the derivative of a picture to its style; a the running mean of ‖Jᵀy‖ with this decay.

    Karras et al. 2020, arXiv:1912.04958, section 3.2. y is normal, divided by √(height · width), so that a weight means
    the same at every size; the paper's ln 2 / (r² (ln r - ln 2)) for r x r pixels is then 1 / (log2 r - 1). a begins at
    the first mean, the paper's at zero. For generators that take a shift of the style, as wide as the latent.
    """

    mean: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))

    def __call__(
        self,
        generator: Callable[..., Tensor],
        batch: Batch,
        pair: Pair,
        real: Verdict | None,
        fake: Verdict,
        draws: Draws,
    ) -> Scalar:
        shift = torch.zeros_like(batch["latent"]).requires_grad_()
        items = generator(batch["latent"], batch.get("label"), shift)
        noise = draws.normal(*items.shape, dtype=items.dtype) / math.sqrt(items.shape[2] * items.shape[3])
        (gradient,) = torch.autograd.grad((items * noise).sum(), shift, create_graph=True)
        lengths = (gradient.square().sum(1) + 1e-12).sqrt()
        with torch.no_grad():
            now = over_processes(lengths.mean(), draws)
            self.mean.copy_(torch.where(self.mean == 0, now, torch.lerp(now, self.mean, self.decay)))
        return (lengths - self.mean).square().mean()
