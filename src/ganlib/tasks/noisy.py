"""Drawing vectors, judged under noise of many strengths: far apart is found first, fine detail sharpened later.

Instance noise (Sønderby et al. 2017, arXiv:1610.04490; Arjovsky & Bottou 2017, arXiv:1701.04862) at a level drawn for
each pair and told to the discriminator, after Diffusion-GAN (Wang et al. 2022, arXiv:2206.02262).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ganlib.core import Batch, Draws, Pair
from ganlib.networks.vectors import LEAST_NOISE, MOST_NOISE
from ganlib.tasks.generate import Generate


@dataclass(frozen=True)
class GenerateNoisy(Generate):
    """Real: x + s·n. Fake: G(z) + s·n'. Both divided by the same level s, with log s as a last column.

    s is log-uniform from `LEAST_NOISE` to `MOST_NOISE`, in units of the standardised data. In items divided by s, a
    penalty on the gradient weighs the gradient to the plain item with s²: the finer the noise, the steeper the
    discriminator may be.
    """

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        real = batch["real"]
        share = draws.uniform(len(real), 1)
        return {
            **super().draw(batch, draws),
            "log_level": math.log(LEAST_NOISE) + share * math.log(MOST_NOISE / LEAST_NOISE),
            "real_noise": draws.normal(*real.shape),
            "fake_noise": draws.normal(*real.shape),
        }

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        plain, log_level = super().pair(generator, batch), batch["log_level"]
        real, fake = (
            torch.cat([item / log_level.exp() + noise, log_level], 1)
            for item, noise in ((plain.real, batch["real_noise"]), (plain.fake, batch["fake_noise"]))
        )
        return Pair(real, fake, plain.condition)
