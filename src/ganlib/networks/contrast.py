"""A translator and the heads that compare what it is given with what it makes. Park et al. 2020, arXiv:2007.15651."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ganlib.networks.translator import PatchProjection, TranslatingGenerator

Units = tuple[Float[Tensor, "batch patches units"], ...]


class Contrasted(NamedTuple):
    """A translated picture, and vectors of length 1 at the same places of it and of the given one, layer by layer."""

    made: Float[Tensor, "batch channels height width"]
    of_made: Units
    of_given: Units


class ContrastingGenerator(nn.Module):
    """The generator with CUT's heads on its encoder, so that they are trained and averaged with it."""

    def __init__(self, generator: TranslatingGenerator, shapes: Sequence[tuple[int, int, int]], *, units: int) -> None:
        super().__init__()
        self.generator = generator
        self.projection = PatchProjection([channels for channels, _, _ in shapes], units=units)

    def forward(
        self,
        items: Float[Tensor, "batch channels height width"],
        places: Sequence[Int[Tensor, "batch _"]] | None = None,
        mirrored: Bool[Tensor, " batch"] | None = None,
    ) -> Tensor | Contrasted:
        """With places what CUT compares there. Rows that are `mirrored` go through the generator so, and come out so.

        What is made of them is mirrored back before it is looked at, and so are the features of what is given: they
        agree at all places only if what is made of a mirror image is the mirror image of what is made.
        """
        if places is None:
            return self.generator(items)
        made, given = self.generator.with_features(with_mirrored(items, mirrored))
        of_made = self.projection(self.generator.features(with_mirrored(made, mirrored)), places)
        return Contrasted(made, of_made, self.projection([with_mirrored(maps, mirrored) for maps in given], places))


def with_mirrored(
    maps: Float[Tensor, "batch channels height width"], mirrored: Bool[Tensor, " batch"] | None
) -> Float[Tensor, "batch channels height width"]:
    """Pictures or their features with some of them mirrored, left and right."""
    return maps if mirrored is None else torch.where(mirrored[:, None, None, None], maps.flip(3), maps)
