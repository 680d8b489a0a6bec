"""What every score asks of its features before it computes anything: one message for each fault."""

import torch
from torch import Tensor

from ganlib.errors import DataError


def checked(features: Tensor, name: str, *, min_items: int = 1) -> Tensor:
    """The same in float64 without a graph, or a DataError that names the fault; `name` says whose features they are."""
    if features.ndim != 2 or features.shape[1] == 0:
        raise DataError(f"{name} features have shape {tuple(features.shape)}; accepted is (items, features)")
    if len(features) < min_items:
        raise DataError(f"{len(features)} {name} items; this score needs at least {min_items}: give more")
    finite = features.isfinite().all(1)
    if not finite.all():
        row = int(finite.logical_not().nonzero()[0])
        raise DataError(f"{name} features: row {row} is not finite; look at item {row} or leave it out")
    return features.detach().double()


def checked_pair(real: Tensor, fake: Tensor, *, min_items: int) -> tuple[Tensor, Tensor]:
    """Both in float64, or a DataError that names the fault."""
    real, fake = checked(real, "real", min_items=min_items), checked(fake, "fake", min_items=min_items)
    if real.shape[1] != fake.shape[1]:
        raise DataError(
            f"real features have a width of {real.shape[1]}, fake ones of {fake.shape[1]}; "
            "compute both with the same extractor from items of one size"
        )
    return real, fake


def checked_labels(labels: Tensor, name: str, num_items: int, num_classes: int | None = None) -> Tensor:
    """Class numbers as int64, or a DataError that names the fault."""
    if labels.shape != (num_items,) or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(
            f"{name} labels are {labels.dtype} of shape {tuple(labels.shape)}; accepted are whole numbers of shape "
            f"({num_items},), one for each item"
        )
    labels = labels.detach().long()
    if len(labels) and (int(labels.min()) < 0 or (num_classes is not None and int(labels.max()) >= num_classes)):
        top = "" if num_classes is None else f" to {num_classes - 1}"
        found = f"from {int(labels.min())} to {int(labels.max())}"
        raise DataError(f"{name} labels run {found}; accepted are class numbers from 0{top}")
    return labels
