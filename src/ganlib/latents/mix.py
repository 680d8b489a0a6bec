"""Pictures with the coarse styles of one and the fine styles of another."""

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.core import Condition
from ganlib.errors import UsageError
from ganlib.latents.space import Styles, items_at


def mixed(
    space: Styles,
    coarse: Float[Tensor, "rows numbers"],
    fine: Float[Tensor, "columns numbers"],
    first_fine: int,
    condition: Condition,
) -> Float[Tensor, "rows columns channels height width"]:
    """Each pair of points: the stages before `first_fine` take the styles of the first, the others of the second.

    Karras et al. 2019, arXiv:1812.04948, section 3.1. All are of one class, of which `condition` has a row for each
    pair. Raises :class:`UsageError` for a `first_fine` that leaves either side nothing, or a space of single styles.
    """
    stages = space.network.num_stages
    if not space.per_stage or not 1 <= first_fine < stages:
        raise UsageError(
            f"the first fine stage is {first_fine}: this model has {stages} stages, accepted are 1 to {stages - 1}"
        )
    cut = coarse.shape[1] // stages * first_fine
    rows = coarse[:, None, :cut].expand(-1, len(fine), -1)
    columns = fine[None, :, cut:].expand(len(coarse), -1, -1)
    items = items_at(space, torch.cat([rows, columns], 2).flatten(0, 1), condition)
    return items.unflatten(0, (len(coarse), len(fine)))
