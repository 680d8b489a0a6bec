"""One set of pictures into another by contrast of patches. Park et al. 2020 (CUT), arXiv:2007.15651."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Batch, Condition, Draws, Pair, Terms, Verdict
from ganlib.networks.contrast import Contrasted, with_mirrored
from ganlib.networks.translator import draw_places
from ganlib.tasks.from_pictures import FromPictures

TEMPERATURE = 0.07


def patch_contrast(
    queries: Float[Tensor, "batch patches units"], keys: Float[Tensor, "batch patches units"]
) -> Float[Tensor, ""]:
    """-log exp(q·k⁺/τ) / Σ exp(q·k/τ): each patch should know its own place among those of the same picture.

    Equation 2 with negatives from within a picture only and τ = 0.07, vectors of length 1; keys are held still, as in
    the authors' code.
    """
    with torch.autocast(queries.device.type, enabled=False):  # bfloat16 keeps two digits of a logit
        logits = queries.float() @ keys.detach().float().transpose(1, 2) / TEMPERATURE
    right = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.transpose(1, 2), right)


@dataclass(frozen=True)
class Contrast(FromPictures):
    """Real: an item of the second set. Fake: what the generator makes of the one of the first set beside it.

    A batch holds one item of each of two sets in turn (``Plan.balanced``). ``contrast`` is :func:`patch_contrast`
    between an item of the first set and what is made of it, the mean over the layers of `shapes` (channels, rows,
    columns); ``identity`` the same for items of the second set, which should stay as they are. With `flips` every
    second pair is translated as its mirror image (FastCUT's flip-equivariance augmentation).
    """

    domains: ClassVar[int] = 1
    one_way: ClassVar[bool] = True
    directions: ClassVar[tuple[str, ...]] = ("AtoB",)

    make_generator: Callable[[], nn.Module]
    make_discriminator: Callable[[], nn.Module]
    shapes: Sequence[tuple[int, int, int]]
    num_patches: int = 256
    identity: bool = True
    flips: bool = False

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.make_generator(), self.make_discriminator()

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        count = len(batch["real"])
        places = draw_places(self.shapes, num_items=count, num_patches=self.num_patches, draws=draws, together=2)
        drawn = {**batch, **{f"places{number}": at for number, at in enumerate(places)}}
        if self.flips:
            drawn["mirrored"] = draws.uniform(-(-count // 2)).lt(0.5).repeat_interleave(2)[:count]
        return drawn

    def condition(self, batch: Batch, draws: Draws) -> Condition:
        return None

    def pair(self, generator: Callable[..., Tensor], batch: Batch) -> Pair:
        step = 1 if self.identity else 2
        items, places = batch["real"][::step], [batch[f"places{number}"][::step] for number in range(len(self.shapes))]
        mirrored = batch["mirrored"][::step] if self.flips else None
        found: Contrasted = generator(items, places, mirrored)  # type: ignore[assignment]
        both = {f"made{k}": units for k, units in enumerate(found.of_made)}
        both |= {f"given{k}": units for k, units in enumerate(found.of_given)}
        given = with_mirrored(items, mirrored)[:: 3 - step]
        return Pair(batch["real"][1::2], found.made[:: 3 - step], None, {"items": given, **both})

    def transform(self, generator: Callable[..., Tensor], items: Tensor, condition: Condition) -> Tensor:
        return generator(items)

    def exhibit(self, pair: Pair) -> tuple[Tensor, ...]:
        return pair.extra["items"], pair.fake

    def generator_terms(self, pair: Pair, real: Verdict | None, fake: Verdict) -> Terms:
        def of(first: int, step: int) -> Tensor:
            layers = range(len(self.shapes))
            rows = [(pair.extra[f"made{k}"][first::step], pair.extra[f"given{k}"][first::step]) for k in layers]
            return torch.stack([patch_contrast(*both) for both in rows]).mean()

        if not self.identity:
            return {"contrast": of(0, 1)}
        return {"contrast": of(0, 2), "identity": of(1, 2)}
