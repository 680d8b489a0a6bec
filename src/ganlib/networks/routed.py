"""Two networks as one, each for its own rows of a batch."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict


class RoutedGenerator(nn.Module):
    """Row by row the network into the domain that is asked for."""

    def __init__(self, make: Callable[[], nn.Module], num_domains: int = 2) -> None:
        super().__init__()
        self.domains = nn.ModuleList(make() for _ in range(num_domains))

    def forward(
        self, items: Float[Tensor, "batch channels height width"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        rows = _rows(target, len(self.domains))
        made = [network(items[own]) for network, own in zip(self.domains, rows, strict=True) if len(own)]
        return _in_order(made, rows)


class RoutedDiscriminator(nn.Module):
    """Row by row the verdict of the discriminator of the domain."""

    def __init__(self, make: Callable[[], nn.Module], num_domains: int = 2) -> None:
        super().__init__()
        self.domains = nn.ModuleList(make() for _ in range(num_domains))

    def forward(self, items: Float[Tensor, "batch channels height width"], domain: Int[Tensor, " batch"]) -> Verdict:
        rows = _rows(domain, len(self.domains))
        made = [network(items[own]) for network, own in zip(self.domains, rows, strict=True) if len(own)]
        return Verdict(
            tuple(_in_order(list(parts), rows) for parts in zip(*(verdict.logits for verdict in made), strict=True)),
            tuple(_in_order(list(parts), rows) for parts in zip(*(verdict.features for verdict in made), strict=True)),
        )


def _rows(domain: Tensor, count: int) -> list[Tensor]:
    return [(domain == number).nonzero()[:, 0] for number in range(count)]


def _in_order(parts: list[Tensor], rows: list[Tensor]) -> Tensor:
    """The rows of the parts as they were: by a permutation, which differentiates as often as one likes."""
    return torch.cat(parts)[torch.cat(rows).argsort()]
