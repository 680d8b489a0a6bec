"""Drawing vectors, judged under noise of many strengths: far apart is found first, fine detail sharpened later.

Instance noise (Sønderby et al. 2017, arXiv:1610.04490; Arjovsky & Bottou 2017, arXiv:1701.04862) at a level drawn for
each pair and told to the discriminator, after Diffusion-GAN (Wang et al. 2022, arXiv:2206.02262).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganlib.core import Batch, Condition, Pair, Task


@dataclass(frozen=True)
class GenerateNoisy(Task):
    """Real: x + s·n. Fake: G(z) + s·n'. Both divided by the same level s, with log s as a last column.

    s is log-uniform in [`least`, `most`], in units of the standardised data. In items divided by s, a penalty on the
    gradient weighs the gradient to the plain item with s²: the finer the noise, the steeper the discriminator may be.
    """

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module]
    latent_width: int
    least: float = 0.02
    most: float = 1.0

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.make_generator(), self.make_discriminator()

    def latent(self, num_items: int, rng: torch.Generator) -> Tensor:
        return torch.randn(num_items, self.latent_width, generator=rng, device=rng.device)

    def draw(self, batch: Batch, rng: torch.Generator) -> Batch:
        real = batch["real"]
        share = torch.rand(len(real), 1, generator=rng, device=rng.device)
        return {
            **batch,
            "latent": self.latent(len(real), rng),
            "log_level": math.log(self.least) + share * math.log(self.most / self.least),
            "real_noise": torch.randn(real.shape, generator=rng, device=rng.device),
            "fake_noise": torch.randn(real.shape, generator=rng, device=rng.device),
        }

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        label, log_level = batch.get("label"), batch["log_level"]
        fake = generator(batch["latent"], label)
        real, fake = (
            torch.cat([item / log_level.exp() + noise, log_level], 1)
            for item, noise in ((batch["real"], batch["real_noise"]), (fake, batch["fake_noise"]))
        )
        return Pair(real, fake, label)

    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> Tensor:
        return generator(latent, condition)
