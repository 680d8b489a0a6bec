"""One call of fit: the loop with its log, looks, checkpoints and budget. The estimator prepares it and shows it."""

import signal
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from ganlib.errors import DivergedError, ExhaustedError, is_of_memory
from ganlib.looking import look
from ganlib.metrics.health import findings, signs_in
from ganlib.saving import last_healthy, roll_back, save
from ganlib.session import Session
from ganlib.training.guard import NonFinite, Trouble
from ganlib.training.loop import train

LOG_STEPS = 50
PATIENCE_LOOKS = 10
LOOKS = 25  # of a run at least, where it can afford them: two that agree are within a tenth of it


@dataclass(frozen=True)
class Progress:
    """Where the training is, after each step; `terms` at every logged step, `score` after every look."""

    items_seen: int
    total_items: int
    seconds: float
    items_per_second: float | None
    terms: dict[str, float] | None = None
    score: float | None = None
    notices: tuple[str, ...] = ()  # what went wrong in this step or look, and what was done


def fit(session: Session) -> Iterator[Progress]:
    """Train until the budget is used, the score no longer improves, or a signal asks for an end; then look and save.

    What goes wrong on the way is met as the plan's :class:`ganlib.core.Health` says.
    """
    session.pace.begin(session.state.items_seen)
    again = True
    while again:
        try:
            again = yield from _stretch(session)
        except NonFinite as error:
            yield _progress(session, notices=(overcome(session, error.trouble),))
            again = not over(session)
        except (RuntimeError, MemoryError) as error:
            if not is_of_memory(error):
                raise
            batch = session.plan.batch_items
            raise ExhaustedError(
                f"out of memory in a step of {batch:,} items; take a smaller batch, such as batch_items="
                f"{max(batch // 2, 1)}, or a smaller width or size ({str(error).splitlines()[0]})"
            ) from error
    save(session)  # the step that was left out may have been the last
    if session.stopped is None:
        session.note("finished", "", {})
    if session.run is not None:
        session.run.plot()


def _stretch(session: Session) -> Generator[Progress, None, bool]:
    """Train until the end, or until a rollback; True after a rollback."""
    state = session.state
    part = session.team.rank, session.team.size
    balanced = session.plan.balanced
    batches = session.data.batches(session.step_items, session.dice, state.items_seen, part, balanced=balanced)
    looked = state.items_seen
    for report in train(state, session.plan, batches, session.runtime, session.dice):
        state.total_items, ending, due, old = decided(session)
        terms = log(session) if due or report.items_seen // session.step_items % LOG_STEPS == 0 else None
        score = None
        notices: tuple[str, ...] = ()
        if due:
            score, looked = look(session), report.items_seen
            # A signal is no end of the training: taken up again, it would go back only at the next look.
            ended = ((ending or over(session)) and session.stopped is None) or report.items_seen >= state.total_items
            notices, again = watch(session, may_go_back=not ended)
            if again:
                yield _progress(session, terms, score, notices)
                return True
        if due or old:
            save(session)
        yield _progress(session, terms, score, notices)
        # What came since it was decided shows after the next step: another message in each would cost all processes.
        ending = ending or ((due or session.team.alone) and over(session))
        if ending or (session.patient and score is not None and exhausted(session.records)):
            break
    over(session)  # a signal of the last moment is one for all
    if session.stopped is None and looked < state.items_seen:
        look(session)
        notices, _ = watch(session, may_go_back=False)
        if notices:
            yield _progress(session, notices=notices)
    save(session)
    return False


def decided(session: Session) -> tuple[int, bool, bool, bool]:
    """After a step: how many items it will be in all, and whether the end has come, a look is due, a checkpoint is old.

    The clock of the first process decides for all of them, and a signal that any process has had.
    """
    state, pace = session.state, session.pace
    total_items = pace.total_items(state.items_seen, state.total_items)
    time_up = pace.over()
    seen, between = state.items_seen, total_items / num_looks(total_items)
    due = time_up or (look_due(seen, session.step_items, total_items) and pace.affords_look(seen, between))
    old = session.in_folder and time.monotonic() - session.saved_at > session.checkpoint_seconds
    own = (total_items, time_up, due, old) if session.team.rank == 0 else (0, False, False, False)
    total, *flags, wish = session.team.largest(*own, session.stop.signal or 0)
    session.stopped = signal.Signals(int(wish)) if wish else None
    return int(total), bool(flags[0] or wish), bool(flags[1]), bool(flags[2])


def over(session: Session) -> bool:
    """Whether the time of the first process is up, or a signal has asked any process for an end."""
    time_up = session.team.rank == 0 and session.pace.over()
    time_up, wish = session.team.largest(time_up, session.stop.signal or 0)
    session.stopped = signal.Signals(int(wish)) if wish else None
    return bool(time_up) or session.stopped is not None


def _progress(
    session: Session,
    terms: dict[str, float] | None = None,
    score: float | None = None,
    notices: tuple[str, ...] = (),
) -> Progress:
    state, pace = session.state, session.pace
    return Progress(
        state.items_seen, state.total_items, pace.spent(), pace.speed(state.items_seen), terms, score, notices
    )


def overcome(session: Session, trouble: Trouble) -> str:
    """Leave the step out, or go back, as the plan says; what was done. Raises :class:`DivergedError` for an end."""
    state, health = session.state, session.plan.health
    state.skipped += 1
    numbers = {"kind": trouble.kind, "name": trouble.name, "value": trouble.value}
    patience = health.nonfinite == "note" or state.skipped < health.skips
    if health.nonfinite != "stop" and not trouble.lasting and patience:
        told = session.note("skipped", f"{trouble}; the step is left out", numbers)
        state.items_seen += session.step_items
        return told
    if health.nonfinite == "rollback" and state.rollbacks < health.rollbacks:
        return go_back(session, str(trouble), numbers, nonfinite=True)
    tried = f" after {state.rollbacks} rollbacks" * (state.rollbacks > 0)
    stays = f"; the last good checkpoint in {session.run.folder} stays" if session.run is not None else ""
    session.note("stopped", str(trouble), numbers)
    raise DivergedError(
        f"{trouble}{tried}{stays}. Train again with a lower learning rate or a larger penalty, or look for extreme "
        "values in the data"
    )


def watch(session: Session, *, may_go_back: bool) -> tuple[tuple[str, ...], bool]:
    """Note what the looks so far say is wrong, each kind once, and go back where the plan says so; whether it did.

    Raises :class:`DivergedError` where the plan says stop.
    """
    health, told = session.plan.health, []
    said = {event["kind"] for event in session.events if event["event"] == "finding"}
    for finding in findings(signs_in(session.records)):
        ill = finding.kind != "overfitting"
        text = f"{finding.kind} since item {finding.since_items:,}: {finding.text}"
        numbers = {"kind": finding.kind, "sign": finding.sign, "value": finding.value, "threshold": finding.threshold}
        if (
            ill
            and health.collapse == "rollback"
            and may_go_back
            and session.state.collapses < health.collapse_rollbacks
        ):
            return (go_back(session, text, numbers, nonfinite=False),), True
        if finding.kind not in said:
            told.append(session.note("finding", f"{text}; {finding.advice}", numbers))
        if ill and health.collapse == "stop":
            save(session)
            raise DivergedError(f"{text}; {finding.advice}")
    return tuple(told), False


def go_back(session: Session, reason: str, numbers: dict[str, float | int | str], *, nonfinite: bool) -> str:
    """Roll back to the last healthy look, and say so; a collapse raises the least augmentation of a plan with one."""
    target, factor = last_healthy(session), session.state.rate_factor * session.plan.health.rate_factor
    items = 0 if target is None else int(target.facts["items_seen"])
    told = session.note(
        "rollback",
        f"{reason}; back to item {items:,}, with other randomness and the learning rates times {factor:g}",
        {**numbers, "to_items": items, "rate_factor": factor},
    )
    roll_back(session, target, nonfinite=nonfinite)
    return told


def num_looks(total_items: int) -> int:
    """How many looks a run of so many items has."""
    return min(50, max(LOOKS, total_items // 100_000))


def look_due(items_seen: int, step_items: int, total_items: int) -> bool:
    """True at each look: a function of the items alone, so that a resumed run looks at the same places."""
    count = num_looks(total_items)
    return items_seen * count // total_items > (items_seen - step_items) * count // total_items


def exhausted(records: list[dict[str, Any]]) -> bool:
    """True when none of the last looks was better than the best before them."""
    scores = [record["score"] for record in records if record.get("score") is not None]
    return len(scores) > PATIENCE_LOOKS and min(scores[-PATIENCE_LOOKS:]) >= min(scores[:-PATIENCE_LOOKS])


def log(session: Session) -> dict[str, float]:
    """Write the mean terms since the last time."""
    terms = session.state.mean.take()
    record = {"items": session.state.items_seen, **terms}
    session.records.append(record)
    if session.run is not None:
        session.run.log(record)
        session.run.log_time({"items": session.state.items_seen, "seconds": round(session.pace.spent(), 3)})
    return terms
