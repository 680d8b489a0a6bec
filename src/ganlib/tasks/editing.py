"""Pictures edited towards attributes. Choi et al. 2018 (StarGAN), arXiv:1711.09020; Pumarola et al. 2018 (GANimation),
arXiv:1807.09251."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Batch, Condition, Draws, Pair, Spec, Terms, Verdict
from ganlib.errors import DataError, UsageError
from ganlib.networks.attributes import Edit as Edited
from ganlib.tasks.from_pictures import FromPictures


@dataclass(frozen=True)
class Edit(FromPictures):
    """Real: an item. Fake: what the generator makes of another one, which is to have the attributes of the first.

    The other is half a batch away, so that it is the same one however many processes share the batch. Both
    networks are told a vector: 1 for the class and 0 for the others, then the attributes from 0 to 1. The discriminator
    also reads it from real and fake: ``class`` is the cross-entropy of what it reads, ``values``
    the mean squared error. ``cycle`` is the mean absolute difference between an item and what becomes of it when its
    own attributes are asked of the fake; ``area`` the mean of 1 - A, how much of the pictures is changed, and
    ``roughness`` the mean absolute difference of A between places beside
    each other.
    """

    domains: ClassVar[int] = 1

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module]
    num_classes: int
    num_values: int

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.make_generator(), self.make_discriminator()

    def given(self, spec: Spec) -> Spec:
        return replace(spec, classes=(), attributes=())

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        return batch

    def condition(self, batch: Batch, draws: Draws) -> Condition:
        return self.vector(batch)

    def vector(self, batch: Batch) -> Tensor:
        """What the generator is told of items with these labels and attributes, [batch, classes + attributes].

        Raises :class:`DataError` for items without labels where there are classes.
        """
        if self.num_classes and "label" not in batch:
            raise DataError(
                f"these pictures have no classes, and this model knows {self.num_classes}: give them a column named "
                "class, sub-folders by class, or labels"
            )
        parts = [F.one_hot(batch["label"], self.num_classes).float()] if self.num_classes else []
        return torch.cat(parts + ([batch["attributes"].float()] if self.num_values else []), 1)

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        given, vector = batch["real"], self.vector(batch)
        wanted = halfway(vector)
        edited: Edited = generator(given, wanted)  # type: ignore[assignment]
        back: Edited = generator(edited.items, vector)  # type: ignore[assignment]
        extra = {"given": given, "cycle": back.items, "mask": edited.mask}
        return Pair(halfway(given), edited.items, wanted, extra)

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        if condition is None:
            raise UsageError("say which attributes the pictures shall have")
        edited: Edited = generator(items, condition)  # type: ignore[assignment]
        return edited.items

    def exhibit(self, pair: Pair) -> tuple[Tensor, ...]:
        mask = (1 - 2 * pair.extra["mask"]).expand_as(pair.fake)  # white where the picture is changed
        return pair.extra["given"], pair.fake, mask, pair.extra["cycle"]

    def discriminator_terms(self, pair: Pair, real: Verdict, fake: Verdict) -> Terms:
        return self._read(pair, real)

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        mask, terms = pair.extra["mask"].float(), self._read(pair, fake)
        terms["cycle"] = (pair.extra["cycle"].float() - pair.extra["given"]).abs().mean()
        terms["area"] = (1 - mask).mean()
        terms["roughness"] = (mask.diff(dim=2).abs().sum() + mask.diff(dim=3).abs().sum()) / mask.numel()
        return terms

    def _read(self, pair: Pair, verdict: Verdict) -> Terms:
        """How far what the discriminator reads is from what the items have, or are to have."""
        assert verdict.classes is not None and pair.condition is not None
        classes, values = verdict.classes[:, : self.num_classes], verdict.classes[:, self.num_classes :]
        terms: Terms = {}
        if self.num_classes:
            terms["class"] = F.cross_entropy(classes, pair.condition[:, : self.num_classes])
        if self.num_values:
            terms["values"] = F.mse_loss(values, pair.condition[:, self.num_classes :])
        return terms


def halfway(rows: Tensor) -> Tensor:
    """The rows, each in the place of the one half a batch away."""
    return rows.roll(len(rows) // 2, 0)
