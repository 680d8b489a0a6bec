"""Virtual batch normalisation: by a batch that never changes. Salimans et al. 2016, arXiv:1606.03498."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ganlib.errors import UsageError


class VirtualBatchNorm(nn.Module):
    """Normalises each item by its own and the reference's statistics; the first `reference_items` are the reference.

    Of reference means m, m₂ of x and x² over items and places, and an item's own a, a₂: mean (n m + a) / (n + 1), mean
    square (n m₂ + a₂) / (n + 1). The reference itself is normalised by m and m₂. Nothing is remembered, and no item
    knows of another but those of the reference.
    """

    def __init__(self, norm: _BatchNorm, reference_items: int) -> None:
        super().__init__()
        self.reference_items, self.eps = reference_items, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Float[Tensor, "batch channels *place"]) -> Float[Tensor, "batch channels *place"]:
        n, wide = self.reference_items, x.float()
        places = [*range(2, x.ndim)]
        mean, square = (part.mean(places) if places else part for part in (wide, wide.square()))
        mean, square = (self._joined(part, n) for part in (mean, square))
        scale = (square - mean.square()).clamp_min(0).add(self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (*mean.shape, *[1] * len(places))
        return torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)

    @staticmethod
    def _joined(own: Tensor, n: int) -> Tensor:
        reference = own[:n].mean(0, keepdim=True)
        return torch.cat([reference.expand(n, -1), (n * reference + own[n:]) / (n + 1)])


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
