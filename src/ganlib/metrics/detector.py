"""Can the samples be told from real items? A classifier is trained to, and tried on items it never saw.

A classifier two-sample test: Lopez-Paz & Oquab 2017, arXiv:1610.06545. The generator's own discriminator is no such
detector: it knows the training items, and only the mistakes of its last minutes.
"""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ganlib.errors import DataError
from ganlib.metrics.checks import checked_pair
from ganlib.metrics.neighbours import nearest

WIDTH, EPOCHS, BATCH_ITEMS, RATE = 256, 30, 128, 1e-3
ENOUGH = 0.01
"""The mean loss of an epoch at which nothing is left to learn."""


@final
class Detector:
    """A small perceptron; calling it gives a logit per item, high for generated ones.

    It sees the standardised features, and how far the nearest generated and the nearest real item are that it learned
    from: samples that repeat give themselves away by that alone.
    """

    def __init__(self, fake: Float[Tensor, "n d"], real: Float[Tensor, "m d"], *, seed: int) -> None:
        """Train on as many of one as of the other. DataError for fewer than 10 of a kind or unusable features."""
        real, fake = checked_pair(real, fake, min_items=10)
        count = min(len(real), len(fake))
        self.fake, self.real = fake[:count], real[:count]
        own = [nearest(items, items, exclude_self=True)[0][:, 0] for items in (self.fake, self.real)]
        across = [nearest(self.fake, self.real)[0][:, 0], nearest(self.real, self.fake)[0][:, 0]]
        self.scale = max(own[1].median().item(), 1e-12)
        items = torch.cat([self.fake, self.real])
        items = self._joined(items, torch.cat([own[0], across[1]]), torch.cat([across[0], own[1]]))
        self.mean, self.deviation = items.mean(0), items.std(0).clamp(min=1e-6)
        answers = torch.cat([torch.ones(count), torch.zeros(count)])
        self.network = _trained(((items - self.mean) / self.deviation).float(), answers, seed)

    def __call__(self, items: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        if items.ndim != 2 or items.shape[1] != self.fake.shape[1]:
            width = self.fake.shape[1]
            raise DataError(f"features of shape {tuple(items.shape)}; the detector was trained on {width}")
        items = items.double()
        items = self._joined(items, *(nearest(items, points)[0][:, 0] for points in (self.fake, self.real)))
        with torch.inference_mode():
            return self.network(((items - self.mean) / self.deviation).float())[:, 0].double().clone()

    def _joined(self, items: Tensor, to_fake: Tensor, to_real: Tensor) -> Float[Tensor, "n d_and_2"]:
        """Features and the logarithms of the distances, the smallest of which count as a thousandth of the usual."""
        distances = torch.stack([to_fake, to_real], 1) / self.scale
        return torch.cat([items, (distances + 1e-3).log()], 1)


def matched(
    fake_cells: Int64[Tensor, " n"], real_cells: Int64[Tensor, " m"]
) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"]]:
    """The numbers of as many samples as real items from each cell of the space, in the order of the items.

    Among items chosen so, a sample gives itself away by what it looks like and not by how often its kind is drawn.
    """
    fakes, reals = [fake_cells[:0]], [real_cells[:0]]
    for cell in fake_cells.unique().tolist():
        ours, theirs = (fake_cells == cell).nonzero()[:, 0], (real_cells == cell).nonzero()[:, 0]
        count = min(len(ours), len(theirs))
        fakes.append(ours[:count])
        reals.append(theirs[:count])
    return torch.cat(fakes).sort().values, torch.cat(reals).sort().values


def _trained(items: Float[Tensor, "n d"], answers: Float[Tensor, " n"], seed: int) -> nn.Module:
    """Trained until it is right about nearly all that it saw, or for all epochs.

    Leaky units and an early end, because gradients that vanish leave Adam to compute with denormal numbers, which a
    processor does a hundred times more slowly.
    """
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the generators of all devices too, which are not put back.
        torch.default_generator.manual_seed(seed)
        sizes = ((items.shape[1], WIDTH), (WIDTH, WIDTH))
        layers = [layer for size in sizes for layer in (nn.Linear(*size), nn.LeakyReLU(0.2))]
        network = nn.Sequential(*layers, nn.Linear(WIDTH, 1))
        optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05, fused=True)
        for epoch in range(EPOCHS):
            losses = []
            for chosen in torch.randperm(len(items), generator=rng).split(BATCH_ITEMS):
                batch = F.dropout(items[chosen], 0.2)
                loss = F.binary_cross_entropy_with_logits(network(batch)[:, 0], answers[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.detach())
            if torch.stack(losses).mean() < ENOUGH:
                break
            for group in optimiser.param_groups:
                group["lr"] = RATE * (1 - (epoch + 1) / EPOCHS)
    return network.eval()
