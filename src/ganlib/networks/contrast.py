"""A translator and the heads that compare what it is given with what it makes. Park et al. 2020, arXiv:2007.15651."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
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
    ) -> Tensor | Contrasted:
        if places is None:
            return self.generator(items)
        made, given = self.generator.with_features(items)
        return Contrasted(made, self.projection(self.generator.features(made), places), self.projection(given, places))
