"""Layers that look at the other items of a batch, so that a generator without variety gives itself away.

Neither depends on how many items a batch has. With them real and fake must be judged apart.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.errors import UsageError


class MinibatchDiscrimination(nn.Module):
    """o_b(x_i) = mean over j ≠ i of exp(-‖M_ib - M_jb‖₁), M_i = f(x_i) T of `kernels` rows. [batch, kernels].

    Salimans et al. 2016, arXiv:1606.03498, whose sum is a mean here: batches of all sizes are then judged alike. A lone
    item has no others: 0.
    """

    def __init__(self, num_features: int, *, kernels: int = 100, kernel_width: int = 5) -> None:
        super().__init__()
        self.kernels = kernels
        self.projection = nn.Linear(num_features, kernels * kernel_width, bias=False)

    @property
    def width(self) -> int:
        """How many numbers it has to say of an item."""
        return self.kernels

    def forward(self, features: Float[Tensor, "batch *feature"]) -> Float[Tensor, "batch kernels"]:
        rows = self.projection(features.flatten(1)).unflatten(1, (self.kernels, -1))
        alike = (-(rows[:, None] - rows[None]).abs().sum(3)).exp()
        others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)[:, :, None]
        return (alike * others).sum(1) / max(len(rows) - 1, 1)


class MinibatchDeviation(nn.Module):
    """The standard deviation of the features over a group of items, averaged over all features. [batch, 1].

    Karras et al. 2018, arXiv:1710.10196, section 3, in groups as in their code. Item i of n belongs to group i modulo
    n/`group_items`; where that is not whole, the groups are completed by items from the beginning. In float32 at least:
    a difference of nearly equal items has no digits in bfloat16.
    """

    width = 1

    def __init__(self, group_items: int = 4) -> None:
        super().__init__()
        self.group_items = group_items

    def forward(self, features: Float[Tensor, "batch *feature"]) -> Float[Tensor, "batch 1"]:
        count, size = len(features), min(self.group_items, len(features))
        groups = -(-count // size)
        places = torch.arange(groups * size, device=features.device) % count
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        grouped = features.flatten(1)[places].unflatten(0, (size, groups))
        # The root has no slope at zero, where a collapsed generator is.
        deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean(1)
        return deviation.repeat(size)[:count, None]

    def as_map(self, features: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels_and_one h w"]:
        """The features with the deviation as one more channel, as the paper has it."""
        extra = self(features)[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return torch.cat([features, extra.to(features.dtype)], 1)


class BesideFeatures(nn.Module):
    """A discriminator with a further layer at its last features: each logit has a linear function of it added.

    For a discriminator that ends in a linear layer this equals to put the layer's numbers beside the features. Raises
    :class:`UsageError` for a verdict without features.
    """

    def __init__(self, discriminator: nn.Module, layer: MinibatchDiscrimination | MinibatchDeviation) -> None:
        super().__init__()
        self.discriminator, self.layer = discriminator, layer
        self.linear = nn.Linear(layer.width, 1, bias=False)

    def forward(self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None) -> Verdict:
        verdict = self.discriminator(items, labels)
        more = self.linear(self.layer(last_features(verdict))).squeeze(1)
        logits = tuple(each + more.view(-1, *[1] * (each.ndim - 1)) for each in verdict.logits)
        return Verdict(logits, verdict.features, verdict.classes)


def last_features(verdict: Verdict) -> Tensor:
    """The last features of a verdict. Raises :class:`UsageError` where there are none."""
    if not verdict.features:
        raise UsageError("this needs a discriminator whose verdict has features, and that of the recipe has none")
    return verdict.features[-1]


@torch.no_grad()
def num_features(discriminator: nn.Module, shape: tuple[int, ...], num_classes: int) -> int:
    """How many numbers the last features of an item of that shape have; tried on one item."""
    training = discriminator.training
    labels = torch.zeros(1, dtype=torch.long) if num_classes else None
    count = last_features(discriminator.eval()(torch.zeros(1, *shape), labels))[0].numel()
    discriminator.train(training)
    return count
