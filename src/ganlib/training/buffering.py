"""The buffer of earlier fakes, without which a discriminator forgets what they gave away."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ganlib.core import Draws, FakeBuffer, Pair
from ganlib.errors import UsageError
from ganlib.training.state import State
from ganlib.training.team import Team


@torch.no_grad()
def with_earlier(state: State, buffer: FakeBuffer | None, pair: Pair, draws: Draws, team: Team) -> Pair:
    """The pair with earlier fakes of the same condition in place of some, whose place in the buffer the new ones take.

    All processes keep the same buffer, of the fakes of all. Fakes that are not finite are not kept: their step is left
    out. Raises :class:`UsageError` where the condition is no class: what it belongs to would have to be kept too.
    """
    if buffer is None:
        return pair
    if pair.condition is not None and (pair.condition.is_floating_point() or pair.condition.ndim != 1):
        raise UsageError("a buffer of earlier fakes is for conditions that are classes, not for pictures")
    fakes = team.rows(pair.fake)
    kinds = fakes.new_zeros(len(fakes), dtype=torch.long) if pair.condition is None else team.rows(pair.condition)
    if not state.buffer:
        state.buffer = {
            "fakes": fakes.new_zeros(buffer.conditions * buffer.items, *fakes.shape[1:]),
            "counts": fakes.new_zeros(buffer.conditions, dtype=torch.long),
        }
    # Numbers for all processes, and the same in each.
    place, dice = draws.generator.device, draws.generator
    lucky = torch.rand(len(fakes), generator=dice, device=place) < buffer.share
    # The rows of a condition exchange in this order, no two of them for the same.
    order = torch.rand(buffer.conditions, buffer.items, generator=dice, device=place).argsort(1)

    finite = fakes.flatten(1).isfinite().all(1)
    of_kind = F.one_hot(kinds, buffer.conditions) * finite[:, None]
    number = (of_kind.cumsum(0) - 1).gather(1, kinds[:, None])[:, 0].clamp(min=0)  # among those of its condition
    free = state.buffer["counts"][kinds] + number
    filling = finite & (free < buffer.items)
    exchanging = finite & ~filling & lucky & (number < buffer.items)
    slot = kinds * buffer.items + torch.where(filling, free, order[kinds, number.clamp(max=buffer.items - 1)])

    kept = _put(state.buffer["fakes"], filling, slot, fakes)
    shown = torch.where(_over(exchanging, fakes), kept[slot.clamp(max=len(kept) - 1)], fakes)
    counts = (state.buffer["counts"] + of_kind.sum(0)).clamp(max=buffer.items)
    state.buffer = {"fakes": _put(kept, exchanging, slot, fakes), "counts": counts}
    own = shown[team.rank :: team.size]
    # In the memory order of the new ones: convolutions round by it, and a saved buffer has lost it.
    return replace(pair, fake=torch.empty_like(pair.fake).copy_(own))


def _put(
    kept: Float[Tensor, "slots *item"],
    chosen: Bool[Tensor, " rows"],
    slot: Int[Tensor, " rows"],
    rows: Float[Tensor, "rows *item"],
) -> Float[Tensor, "slots *item"]:
    """What is kept with the chosen rows in their slots; without waiting for a GPU to count them."""
    source = torch.full((len(kept) + 1,), -1, device=rows.device)
    source[torch.where(chosen, slot, len(kept))] = torch.arange(len(rows), device=rows.device)
    source = source[:-1]  # without that of the rows that were not chosen
    return torch.where(_over(source >= 0, kept), rows[source.clamp(min=0)], kept)


def _over(chosen: Bool[Tensor, " rows"], rows: Tensor) -> Tensor:
    return chosen.view(-1, *[1] * (rows.ndim - 1))
