"""Drawing pictures in stages, coarse to fine: all stages of an item are judged together."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ganlib.core import Batch, Condition, Pair
from ganlib.networks.cascade import coarser, padded_size, stacked
from ganlib.networks.parts import pad
from ganlib.tasks.generate import Generate


@dataclass(frozen=True)
class GenerateInStages(Generate):
    """Real: the picture with its coarser forms. Fake: what each stage made of the stage before it, stacked alike."""

    stages: int = 2

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        real, label = batch["real"], batch.get("label")
        size = padded_size(real.shape[2], real.shape[3], self.stages)
        return Pair(stacked(coarser(pad(real, *size), self.stages)), generator(batch["latent"], label), label)

    def sample(self, generator: Callable[..., Tensor], latent: Tensor, condition: Condition) -> Tensor:
        return generator.finest(generator(latent, condition))  # type: ignore[attr-defined]
