"""Several items of one class judged together: who lacks variety shows it within a pack."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict


class Packed(nn.Module):
    """A discriminator of packs of `items`, side by side as channels or columns. Lin et al. 2018, arXiv:1712.04086.

    The verdict on an item is that on it and others of its class, as far apart in the batch as can be; after the last of
    a class comes its first. So there are as many verdicts as items, of any number, and each pack is one of the paper's;
    the paper judges an item in one pack only, here it is in as many as it has places. Where a class has fewer items
    than a pack, they repeat, real and fake alike. A penalty on the gradient to an item is that of all packs with it.

    Of several processes each packs its own rows. Without classes, and where the rows of each make whole packs, these
    are the packs that one process would have made.
    """

    def __init__(self, discriminator: nn.Module, items: int) -> None:
        super().__init__()
        self.discriminator, self.items = discriminator, items

    def forward(self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None) -> Verdict:
        places = pack(len(items), self.items, labels, items.device)
        return self.discriminator(items[places].flatten(1, 2), labels)


def pack(
    count: int, size: int, labels: Int[Tensor, " batch"] | None, device: torch.device
) -> Int[Tensor, "batch {size}"]:
    """Which items of a batch are judged together with each: itself, then every n/`size`-th of the n of its class."""
    places = torch.arange(size, device=device)
    if labels is None:
        return (torch.arange(count, device=device)[:, None] + places * max(count // size, 1)) % count
    order = labels.argsort(stable=True)
    ordered = labels[order]
    first = torch.searchsorted(ordered, ordered)
    of_class = torch.searchsorted(ordered, ordered, right=True) - first
    ahead = places * (of_class // size).clamp(min=1)[:, None]
    within = (torch.arange(count, device=device) - first)[:, None] + ahead
    packs = order[first[:, None] + within % of_class[:, None]]
    return packs[order.argsort()]
