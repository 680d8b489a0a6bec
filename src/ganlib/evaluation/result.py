"""What an evaluation returns: five answers, their figures, and the pictures that belong to them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal

import numpy as np

from ganlib.metrics.report import Score, table

Verdict = Literal["PASS", "WARN", "FAIL", "NOT MEASURED"]

QUESTIONS = {
    "good": "Are the samples good?",
    "covered": "Is everything covered?",
    "copied": "Did it copy?",
    "private": "Could an outsider tell who was in the data?",
    "recognisable": "Can its output be recognised?",
}


@dataclass(frozen=True)
class Answer:
    """A verdict, one sentence that says why, and the figures behind it by name."""

    verdict: Verdict
    reason: str
    scores: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Exhibits:
    """What the page shows, as pictures [n, height, width, channels] uint8; empty arrays where there is nothing.

    Vectors have no pictures. `curve` is what the detector's receiver operating characteristic is drawn from.
    """

    samples: np.ndarray
    reals: np.ndarray
    neighbours: np.ndarray  # pairs, a sample above its nearest training item, the closest pairs first
    neighbour_distances: np.ndarray  # of the pairs, and over the threshold of a copy
    missed: np.ndarray  # real items from the regions that are drawn too seldom
    overdrawn: np.ndarray  # samples from those that are drawn too often
    worst: np.ndarray  # samples farthest from all real items
    missed_shares: tuple[float, float] = (0.0, 0.0)  # of the samples, of the reals, in the missed regions
    overdrawn_shares: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Five answers and the protocol without which their figures mean nothing."""

    good: Answer
    covered: Answer
    copied: Answer
    private: Answer
    recognisable: Answer
    protocol: Mapping[str, Any]
    exhibits: Exhibits = field(repr=False)

    def answers(self) -> dict[str, Answer]:
        """By name, in the order of the page."""
        return {name: getattr(self, name) for name in QUESTIONS}

    def scores(self) -> dict[str, Score]:
        """All figures by name."""
        return {name: score for answer in self.answers().values() for name, score in answer.scores.items()}

    def to_json(self) -> str:
        """All but the pictures; null is what was not measured or is not finite, as for samples that are astray."""
        told: dict[str, Any] = {
            name: {"question": QUESTIONS[name], **asdict(answer)} for name, answer in self.answers().items()
        }
        for answer in told.values():
            for score in answer["scores"].values():
                score |= {key: None for key, value in score.items() if isinstance(value, float) and not isfinite(value)}
        return json.dumps({**told, "protocol": dict(self.protocol)}, indent=2, allow_nan=False)

    def __str__(self) -> str:
        lines = []
        for name, answer in self.answers().items():
            lines += [f"{answer.verdict:12}  {QUESTIONS[name]}  {answer.reason}"]
        return "\n".join([*lines, "", table(self.scores()), "", *(f"{k}: {v}" for k, v in self.protocol.items())])
