"""The loop: a Python generator. Whoever wants something every k items writes it in the body of a ``for``."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ganlib.core import Batch, Plan, Terms
from ganlib.training.guard import check_inputs
from ganlib.training.runtime import Runtime
from ganlib.training.state import State
from ganlib.training.step import step


@dataclass(frozen=True)
class Report:
    """What one step did. The terms are tensors on the device: reading one waits for it."""

    items_seen: int
    terms: Terms
    seconds: float  # of wall time since the loop began


def train(state: State, plan: Plan, batches: Iterable[Batch], runtime: Runtime, seed: int) -> Iterator[Report]:
    """Take steps until ``state.total_items`` are seen or the batches end, and report each.

    `batches` must begin at ``state.items_seen`` and hold ``batch_items`` · ``discriminator_steps`` items each. Raises
    :class:`ganlib.training.guard.NonFinite`, a :class:`ganlib.errors.DivergedError`, for values that are not finite;
    to leave the step out, add its items to ``state.items_seen`` and begin again with the batches after it.
    """
    start = time.monotonic()
    for batch in batches:
        if state.items_seen >= state.total_items:
            return
        # Before they are moved: a look at a GPU's memory waits for the GPU.
        check_inputs(batch, state.items_seen, runtime.team)
        terms = step(state, plan, runtime.move(batch), runtime, seed)
        state.mean.add(terms)
        yield Report(state.items_seen, terms, time.monotonic() - start)
