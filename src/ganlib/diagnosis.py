"""What is wrong with a training, in plain words: from the records of a fit, or from a run folder alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ganlib.errors import DamagedError, MissingError, RunError, UsageError
from ganlib.metrics import health
from ganlib.training import checkpoint
from ganlib.training.run import Run

LOWER = "train again with a lower learning_rate or a larger penalty, and look for extreme values in the data"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: since which item, the number and its threshold where there are such, what to change."""

    kind: str
    text: str
    advice: str
    since_items: int | None = None
    value: float | None = None
    threshold: float | None = None

    def __str__(self) -> str:
        since = "" if self.since_items is None else f" since item {self.since_items:,}"
        return f"{self.kind}{since}: {self.text}\n  what to change: {self.advice}"


@dataclass(frozen=True)
class Diagnosis:
    """The findings, what has happened on the way and was met, and how far the training is."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    items: int

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that is wrong now."""
        return not self.findings

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"healthy": self.healthy, **asdict(self)})

    def __str__(self) -> str:
        verdict = (
            "healthy" if self.healthy else f"not healthy: {len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        )
        lines = [f"{verdict} after {self.items:,} items", *map(str, self.findings)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def of_training(records: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """What the log and the events of a training say."""
    looks = health.signs_in(records)
    items = max((int(record["items"]) for record in records), default=0)
    found = [
        Finding(bad.kind, bad.text, bad.advice, bad.since_items, bad.value, bad.threshold)
        for bad in (health.findings(looks) if looks else ())
    ]
    if events and events[-1]["event"] == "stopped":
        last = events[-1]
        found.insert(0, Finding("stopped", str(last["text"]), LOWER, int(last["items"])))
    notes = [str(event["text"]) for event in events if event["event"] == "rollback"]
    skipped = [event for event in events if event["event"] == "skipped"]
    if skipped:
        notes.append(f"{len(skipped)} steps were left out, the last because {skipped[-1]['text']}")
    return Diagnosis(tuple(found), tuple(notes), items)


def of_run(folder: Path | str | None) -> Diagnosis:
    """What a run folder says, also while it trains: log, events, digests of all checkpoints, lock, files left out.

    Raises :class:`MissingError` and :class:`RunError` where there is no run, :class:`UsageError` for None.
    """
    if folder is None:
        raise UsageError("a model from a .gan file knows nothing of its training; load the run folder, or fit")
    run = Run.read(folder)
    found: list[Finding] = []
    logs: list[list[dict[str, Any]]] = []
    for read in (run.records, run.events):
        try:
            logs.append(read())
        except DamagedError as error:
            logs.append([])
            found.append(Finding("damaged log", str(error), "delete the line; the run can go on from its checkpoint"))
    records, events = logs
    holder = run.holder()
    saved, damaged = _checkpoints(run)
    found += damaged
    notes = [f"{holder} is training it now"] if holder is not None else []
    if holder is None:
        found += _unfinished(run, saved, events)
    told = of_training(records, events)
    items = max(told.items, int(saved["items_seen"]) if saved is not None else 0)
    return Diagnosis((*told.findings, *found), (*told.notes, *notes, *_left_out(run)), items)


def _checkpoints(run: Run) -> tuple[Mapping[str, Any] | None, list[Finding]]:
    """The facts of the newest whole checkpoint, and a finding for each damaged one."""
    newest, found = None, []
    for folder in checkpoint.listed(run.checkpoints):
        try:
            _, newest = checkpoint.load(folder)
        except MissingError:
            continue  # training went on meanwhile, and deleted it
        except (DamagedError, RunError) as error:
            advice = f"run the same command again: training goes on from a whole one; then delete {folder}"
            found.append(Finding("damaged checkpoint", str(error), advice))
    return newest, found


def _unfinished(run: Run, saved: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """A finding where nobody trains and the end was not reached."""
    command = f"run the same command again: ganlib fit DATA --out {run.folder}"
    if saved is None:
        return [Finding("no checkpoint", "nothing has been saved yet, and no process is training", command)]
    if events and events[-1]["event"] in ("finished", "stopped"):
        return []
    share = f"{int(saved['items_seen']):,} of {int(saved['total_items']):,} items"
    return [Finding("interrupted", f"training ended after {share}, and no process is training", command)]


def _left_out(run: Run) -> list[str]:
    """A note on files that could not be read."""
    if not (run.folder / "unreadable.json").exists():
        return []
    files = run.read_facts("unreadable.json")
    return [
        f"{len(files):,} files of the data could not be read and were left out, the first {files[0][0]}: {files[0][1]}"
    ]
