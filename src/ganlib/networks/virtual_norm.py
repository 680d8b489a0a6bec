"""Virtual batch normalisation: by a batch that never changes. Salimans et al. 2016, arXiv:1606.03498."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganlib.errors import UsageError


class VirtualBatchNorm(nn.Module):
    """Normalises each item by its own and the reference's statistics; the first `reference_items` are the reference.

    Of the reference's mean m and mean square m₂ over items and places, and an item's own a and a₂: mean (n m + a) /
    (n + 1), mean square (n m₂ + a₂) / (n + 1). The reference itself is normalised by m and m₂. Nothing is remembered,
    and no item knows of another but those of the reference.
    """

    def __init__(self, norm: _BatchNorm, reference_items: int) -> None:
        super().__init__()
        self.reference_items, self.eps = reference_items, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Float[Tensor, "batch channels *place"]) -> Float[Tensor, "batch channels *place"]:
        n, wide, places = (
            self.reference_items,
            x.to(torch.promote_types(x.dtype, torch.float32)),
            tuple(range(2, x.ndim)),
        )
        own = wide.mean(places) if places else wide
        spread = (wide - own.view(*own.shape, *[1] * len(places))).square()
        spread = spread.mean(places) if places else spread
        reference = own[:n].mean(0, keepdim=True)
        reference_variance = (spread[:n] + (own[:n] - reference).square()).mean(0, keepdim=True)
        # By deviations from the means: E x² - m² loses digits.
        mean = (n * reference + own[n:]) / (n + 1)
        ours, theirs = (own[n:] - mean).square() + spread[n:], (reference - mean).square() + reference_variance
        variance = torch.cat([reference_variance.expand(n, -1), (n * theirs + ours) / (n + 1)])
        mean = torch.cat([reference.expand(n, -1), mean])
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (*mean.shape, *[1] * len(places))
        return torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)


class VirtuallyNormalised(nn.Module):
    """A generator whose batch normalisations are virtual, by a reference batch of the latents given, kept with it.

    Every pass makes the reference's items too. They come with the classes in turn, where there are any. Raises
    :class:`UsageError` for a generator without batch normalisation.
    """

    reference: Tensor
    reference_labels: Tensor | None

    def __init__(self, generator: nn.Module, reference: Float[Tensor, "n latent"], *, num_classes: int = 0) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("reference", reference)
        labels = torch.arange(len(reference)) % num_classes if num_classes else None
        self.register_buffer("reference_labels", labels)
        norms = [
            (parent, name)
            for parent in list(generator.modules())
            for name, child in list(parent.named_children())
            if isinstance(child, _BatchNorm)
        ]
        if not norms:
            raise UsageError("virtual batch normalisation is for generators with batch normalisation; this has none")
        for parent, name in norms:
            setattr(parent, name, VirtualBatchNorm(getattr(parent, name), len(reference)))

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch *item"]:
        if labels is not None and self.reference_labels is not None:
            labels = torch.cat([self.reference_labels, labels])
        return self.generator(torch.cat([self.reference, latent]), labels)[len(self.reference) :]
