"""What a comparison found: an entry for each training, and the protocol without which its figures mean nothing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any, Literal

from ganlib.errors import DamagedError
from ganlib.metrics.report import Score

State = Literal["finished", "diverged", "refused", "out of memory", "failed", "interrupted"]
SETTLED = ("finished", "diverged")
"""Trainings that are not begun again: the others may go better another time."""


@dataclass(frozen=True)
class Cost:
    """What the processes of a training took: all attempts together, start-up and reading the data included."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_bytes: int = 0  # of main memory, the most at once

    def plus(self, other: "Cost") -> "Cost":
        return Cost(
            self.cpu_seconds + other.cpu_seconds,
            self.wall_seconds + other.wall_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )


@dataclass(frozen=True)
class Entry:
    """One recipe with one seed. `verdict` is a word on the samples or, where there are none, on the training."""

    name: str
    seed: int
    folder: str
    state: State
    reason: str = ""  # of a state that is not finished
    labels: bool = False  # whether it was trained with the labels of the data
    items: int = 0
    items_per_second: float | None = None  # of the training alone, on the clock of its budget
    parameters: Mapping[str, int] = field(default_factory=dict)
    verdict: str = ""
    why: str = ""
    scores: Mapping[str, Score] = field(default_factory=dict)
    cost: Cost = Cost()


@dataclass(frozen=True)
class Comparison:
    """All entries, and what they have in common."""

    protocol: Mapping[str, Any]
    entries: tuple[Entry, ...] = ()

    def names(self) -> list[str]:
        """The recipes in the order they were asked for."""
        return list(dict.fromkeys(entry.name for entry in self.entries))

    def of(self, name: str, seed: int) -> Entry | None:
        return next((entry for entry in self.entries if (entry.name, entry.seed) == (name, seed)), None)

    def with_entry(self, entry: Entry) -> "Comparison":
        """The same with this entry in the place of an earlier one, or at the end."""
        if self.of(entry.name, entry.seed) is None:
            return replace(self, entries=(*self.entries, entry))
        same = (entry.name, entry.seed)
        return replace(self, entries=tuple(entry if (e.name, e.seed) == same else e for e in self.entries))

    def to_json(self) -> str:
        """All of it; null is what was not measured or is not finite."""
        entries = [asdict(entry) for entry in self.entries]
        for score in (score for entry in entries for score in entry["scores"].values()):
            score |= {key: None for key, value in score.items() if isinstance(value, float) and not isfinite(value)}
        return json.dumps({"protocol": dict(self.protocol), "entries": entries}, indent=2, allow_nan=False)


def from_json(text: str, where: str) -> Comparison:
    """What :meth:`Comparison.to_json` wrote. Raises :class:`DamagedError` for anything else."""
    try:
        told = json.loads(text)
        entries = []
        for each in told["entries"]:
            scores = {name: Score(**score) for name, score in each["scores"].items()}
            entries.append(Entry(**{**each, "scores": scores, "cost": Cost(**each["cost"])}))
        return Comparison(told["protocol"], tuple(entries))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{where} is no comparison of this version of ganlib ({error}); choose another --out"
        ) from error
