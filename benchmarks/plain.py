"""Loops that a person writes in plain PyTorch: float32, eager, all settings as PyTorch has them."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from ganlib.core import Draws, OptimiserSettings, Plan

Labels = Tensor | None


class PlainR3:
    """The networks, losses, penalties and rates of an r3 plan at its start, with a moving average.

    RpGAN + R1 + R2 (Huang et al. 2024, arXiv:2501.05441); the penalties are exact and as rare as the plan has them.
    """

    def __init__(self, plan: Plan, device: str) -> None:
        self.g, self.d = (net.to(device) for net in plan.task.networks() if net is not None)
        self.average = copy.deepcopy(self.g)
        self.opt_g, self.opt_d = _adam(self.g, plan.generator), _adam(self.d, plan.discriminator)
        r1 = plan.objective.penalties["r1"]
        self.every, self.weight = r1.every_steps, 0.5 * r1.every_steps * r1.weight(0, 1)
        self.plan, self.rng, self.steps = plan, torch.Generator(device).manual_seed(0), 0

    def step(self, real: Float[Tensor, "batch channels height width"], labels: Labels) -> None:
        due = self.steps % self.every == 0
        self.steps += 1
        fake = self.g(self.plan.task.latent(len(real), Draws(self.rng)), labels)
        items = [real.detach().requires_grad_(due), fake.detach().requires_grad_(due)]
        logits = [self.d(item, labels).logits[0] for item in items]
        loss = F.softplus(logits[1] - logits[0]).mean()
        if due:
            for logit, item in zip(logits, items, strict=True):
                (gradient,) = torch.autograd.grad(logit.sum(), item, create_graph=True)
                loss = loss + self.weight * gradient.square().flatten(1).sum(1).mean()
        self.opt_d.zero_grad()
        loss.backward()
        self.opt_d.step()
        loss = F.softplus(self.d(real, labels).logits[0] - self.d(fake, labels).logits[0]).mean()
        self.opt_g.zero_grad()
        loss.backward()
        self.opt_g.step()
        with torch.no_grad():
            for average, value in zip(self.average.parameters(), self.g.parameters(), strict=True):
                average.lerp_(value, 0.001)


class PlainSNGAN:
    """SNGAN's convolutional networks for 32 x 32, hinge loss, one update each. Miyato et al. 2018, arXiv:1802.05957.

    Networks of table 3 there; Adam with 2e-4, 0.5, 0.999, batch 64. No moving average, no labels.
    """

    batch_items, latent = 64, 128

    def __init__(self, device: str) -> None:
        up: list[nn.Module] = [nn.Linear(self.latent, 512 * 16), nn.Unflatten(1, (512, 4, 4)), nn.BatchNorm2d(512)]
        for a, b in ((512, 256), (256, 128), (128, 64)):
            up += [nn.ReLU(True), nn.ConvTranspose2d(a, b, 4, 2, 1), nn.BatchNorm2d(b)]
        self.g = nn.Sequential(*up, nn.ReLU(True), nn.Conv2d(64, 3, 3, 1, 1), nn.Tanh()).to(device)
        down: list[nn.Module] = []
        for a, b, kernel, stride in (
            (3, 64, 3, 1),
            (64, 64, 4, 2),
            (64, 128, 3, 1),
            (128, 128, 4, 2),
            (128, 256, 3, 1),
        ):
            down += [spectral_norm(nn.Conv2d(a, b, kernel, stride, 1)), nn.LeakyReLU(0.1, True)]
        down += [spectral_norm(nn.Conv2d(256, 256, 4, 2, 1)), nn.LeakyReLU(0.1, True)]
        down += [spectral_norm(nn.Conv2d(256, 512, 3, 1, 1)), nn.LeakyReLU(0.1, True), nn.Flatten()]
        self.d = nn.Sequential(*down, spectral_norm(nn.Linear(512 * 16, 1)), nn.Flatten(0)).to(device)
        self.opt_g, self.opt_d = (
            torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (self.g, self.d)
        )
        self.device = device

    def step(self, real: Float[Tensor, "batch channels height width"]) -> None:
        fake = self.g(torch.randn(len(real), self.latent, device=self.device))
        self.opt_d.zero_grad()
        (F.relu(1 - self.d(real)).mean() + F.relu(1 + self.d(fake.detach())).mean()).backward()
        self.opt_d.step()
        self.opt_g.zero_grad()
        (-self.d(fake).mean()).backward()
        self.opt_g.step()

    @torch.no_grad()
    def draw(self, num_items: int) -> Float[Tensor, "items channels height width"]:
        """Samples with the running batch statistics, on the CPU."""
        self.g.eval()
        parts = torch.randn(num_items, self.latent, device=self.device).split(64)
        return torch.cat([self.g(part).cpu() for part in parts])


def _adam(network: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2(0, 1))
    return torch.optim.Adam(network.parameters(), lr=settings.learning_rate(0, 1), betas=betas)
