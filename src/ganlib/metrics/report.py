"""The scores of a generator together, each beside what fresh real data would score, and how they were computed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DataError, UsageError
from ganlib.metrics.scores import frechet_distance, kernel_distance, neighbourhood

MIN_ITEMS = 50
"""With fewer items on a side no score is given at all."""

SCORE_NAMES = ("frechet", "kernel", "precision", "recall", "density", "coverage")
"""In the order of the table."""

PROTOCOL_KEYS = ("extractor", "extractor_digest", "reference", "seed", "quantisation", "truncation", "version")
"""What the caller must say: what was extracted from what, so that numbers are compared only where they may be."""


@dataclass(frozen=True)
class Score:
    """A number, its 95 % interval if there is one, what fresh real data scores; `note` says why one is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    real_baseline: float | None = None
    note: str = ""

    def __str__(self) -> str:
        return "  ".join(self.cells()).rstrip()

    def cells(self) -> tuple[str, str, str, str]:
        """The columns of the table: value, interval, baseline, note."""
        value = "NOT MEASURED" if self.value is None else f"{self.value:.4g}"
        interval = "" if self.low is None or self.high is None else f"[{self.low:.3g}, {self.high:.3g}]"
        baseline = "-" if self.real_baseline is None else f"{self.real_baseline:.4g}"
        return value, interval, baseline, self.note


@dataclass(frozen=True)
class Yardstick:
    """All scores of one set of fakes, and the protocol without which they mean nothing.

    Lower is better for the two distances. The other four have no best value but that of real data: precision and
    density are blind to collapse, which recall and coverage see.
    """

    frechet: Score
    kernel: Score
    precision: Score
    recall: Score
    density: Score
    coverage: Score
    protocol: Mapping[str, Any]

    def scores(self) -> dict[str, Score]:
        """By name, in the order of the table."""
        return {name: getattr(self, name) for name in SCORE_NAMES}

    def to_json(self) -> str:
        """All of it as JSON; what was not measured is null."""
        scores = {name: asdict(score) for name, score in self.scores().items()}
        return json.dumps({"scores": scores, "protocol": dict(self.protocol)}, indent=2, allow_nan=False)

    def __str__(self) -> str:
        return "\n".join([table(self.scores()), "", *(f"{key}: {value}" for key, value in self.protocol.items())])


def table(scores: Mapping[str, Score]) -> str:
    """Lines of a name, a value, its interval and what real data scores, in columns."""
    rows = [("score", "value", "95 % interval", "real data", "")]
    rows += [(name, *score.cells()) for name, score in scores.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def yardstick(
    real_feats: Float[Tensor, "n d"],
    fake_feats: Float[Tensor, "m d"],
    *,
    baseline_feats: Float[Tensor, "b d"] | None,
    protocol: Mapping[str, Any],
    k: int = 5,
) -> Yardstick:
    """All scores of the fakes against the reals, beside those of `baseline_feats`, other real items, against the same.

    Give as many baseline items as fakes: all scores but the kernel distance depend on the number. A score that has too
    few items, on a side fewer than 50 or for the Fréchet distance than features, is NOT MEASURED. UsageError for a
    protocol without :data:`PROTOCOL_KEYS`, or that cannot be JSON; DataError for unusable features.
    """
    fake = _measured(real_feats, fake_feats, k, _seed(protocol))
    base = {name: Score(None) for name in fake}
    note = ""
    if baseline_feats is not None:
        base = _measured(real_feats, baseline_feats, k, _seed(protocol))
        if len(baseline_feats) != len(fake_feats):
            note = f"real data: {len(baseline_feats)} items, fakes: {len(fake_feats)}; not quite comparable"
    joined = {
        name: Score(
            score.value, score.low, score.high, base[name].value, score.note or _baseline_note(base[name], note)
        )
        for name, score in fake.items()
    }
    counts = {
        "n_real": len(real_feats),
        "n_fake": len(fake_feats),
        "n_baseline": 0 if baseline_feats is None else len(baseline_feats),
        "num_features": real_feats.shape[1],
        "k": k,
        "kernel_subset_size": _subset_size(real_feats, fake_feats),
    }
    return Yardstick(**joined, protocol=_jsonable({**protocol, **counts}))


def _baseline_note(base: Score, note: str) -> str:
    return f"real data: {base.note}" if base.note else note


def _measured(real: Tensor, fake: Tensor, k: int, seed: int) -> dict[str, Score]:
    """Each score of the fakes without its baseline."""
    if real.ndim != 2 or fake.ndim != 2:
        raise DataError(f"features of shapes {tuple(real.shape)}, {tuple(fake.shape)}; accepted are (items, features)")
    num_items, width = min(len(real), len(fake)), real.shape[1]
    needed = max(MIN_ITEMS, k + 1)
    if num_items < needed:
        # The Fréchet distance may need more still; say so at once.
        return {
            name: _not_measured(max(needed, width) if name == "frechet" else needed, num_items) for name in SCORE_NAMES
        }
    rng = torch.Generator().manual_seed(seed)
    kernel = kernel_distance(real, fake, subset_size=_subset_size(real, fake), rng=rng)
    low, high = kernel.interval or (None, None)
    shares = neighbourhood(real, fake, k=k)
    enough = num_items >= width
    return {
        "frechet": Score(frechet_distance(real, fake)) if enough else _not_measured(width, num_items),
        "kernel": Score(kernel.mean, low, high),
        "precision": Score(shares.precision),
        "recall": Score(shares.recall),
        "density": Score(shares.density),
        "coverage": Score(shares.coverage),
    }


def _not_measured(needed: int, given: int) -> Score:
    return Score(None, note=f"needs at least {needed} items on each side, has {given}")


def _subset_size(real: Tensor, fake: Tensor) -> int:
    """At most half of the items, which the interval needs."""
    return min(1000, min(len(real), len(fake)) // 2)


def _seed(protocol: Mapping[str, Any]) -> int:
    missing = [key for key in PROTOCOL_KEYS if key not in protocol]
    if missing:
        raise UsageError(f"protocol without {missing}; it needs all of {list(PROTOCOL_KEYS)}")
    if type(protocol["seed"]) is not int:
        raise UsageError(f"seed={protocol['seed']!r} in the protocol; accepted is a whole number")
    return protocol["seed"]


def _jsonable(protocol: dict[str, Any]) -> dict[str, Any]:
    """The same, or an error now rather than when the scores are saved."""
    try:
        json.dumps(protocol, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"protocol cannot be saved as JSON ({error}); give numbers, strings, lists, dictionaries"
        ) from None
    return protocol
