"""Saving the state of a session, and going back to it when the training has gone wrong."""

import time
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ganlib.metrics.health import ill, signs_in
from ganlib.session import Session
from ganlib.training import checkpoint
from ganlib.training.checkpoint import Checkpoint
from ganlib.training.guard import check_tensors
from ganlib.training.state import create, restore, to_facts, to_tensors


def save(session: Session) -> None:
    """Write a checkpoint, unless this state is saved already; without a run folder keep a healthy one in memory.

    All processes look at their state, which is the same, and the first one writes.
    Raises :class:`ganlib.training.guard.NonFinite` instead of saving what is not finite.
    """
    state, run = session.state, session.run
    if session.saved_items == state.items_seen:
        return
    looks = signs_in(session.records)
    healthy = bool(looks) and looks[-1].items == state.items_seen and not ill(looks)
    if run is None and not session.in_folder and not healthy:
        return
    start = session.pace.now()
    tensors = to_tensors(state)
    check_tensors(tensors, state.items_seen)
    if session.team.rank == 0:
        _write(session, tensors, healthy)
    session.saved_items, session.saved_at = state.items_seen, time.monotonic()
    session.pace.save_seconds = session.pace.now() - start
    session.pace.pause(session.pace.save_seconds)


def _write(session: Session, tensors: Mapping[str, Mapping[str, Tensor]], healthy: bool) -> None:
    state, run = session.state, session.run
    scores = [record for record in session.records if record.get("score") is not None]
    score = scores[-1]["score"] if scores and scores[-1]["items"] == state.items_seen else None
    facts = {
        **to_facts(state),
        "score": score,
        "healthy": healthy,
        "events": len(session.events),
        "seconds": round(session.pace.spent(), 3),
    }
    if run is None:
        copies = {
            group: {name: value.to("cpu", copy=True) for name, value in members.items()}
            for group, members in tensors.items()
        }
        session.healthy = Checkpoint(Path(), copies, facts)
    else:
        run.log_time({"items": state.items_seen, "seconds": facts["seconds"]})
        run.sync_log()
        checkpoint.save(run.checkpoints / checkpoint.name(state.items_seen), tensors, facts)
        checkpoint.prune(run.checkpoints)


def last_healthy(session: Session) -> Checkpoint | None:
    """The state at the last healthy look; None before there was one.

    That of a look, not the newest of all: those in between depend on the clock, and a resumed run would not be the bits
    of an uninterrupted one.
    """
    found = session.healthy if session.run is None else checkpoint.newest_healthy(session.run.checkpoints)
    return checkpoint.of_first(found, session.team)


def roll_back(session: Session, target: Checkpoint | None, *, nonfinite: bool) -> None:
    """Return to the target, or to a new beginning for None, with other randomness and lower rates, and save that.

    A process killed on the way resumes at the target and meets the same trouble again, in the same bits.
    """
    state, run = session.state, session.run
    state.rollbacks, state.collapses = state.rollbacks + nonfinite, state.collapses + (not nonfinite)
    kept = {
        "rollbacks": state.rollbacks,
        "collapses": state.collapses,
        "rate_factor": state.rate_factor * session.plan.health.rate_factor,
        "skipped": 0,
        "total_items": state.total_items,
    }
    if target is None:
        again = create(session.plan, session.runtime, session.dice, state.total_items)
        target = Checkpoint(Path(), to_tensors(again), to_facts(again))
    if run is not None:
        checkpoint.discard_after(run.checkpoints, int(target.facts["items_seen"]))
    restore(state, target.tensors, {**target.facts, **kept})
    session.records[:] = [record for record in session.records if record["items"] <= state.items_seen]
    if run is not None:
        run.rewind(state.items_seen)
    session.saved_items = -1
    save(session)
    session.pace.begin(state.items_seen)
