"""A comparison as a table in Markdown, a line for each recipe."""

import statistics
from collections.abc import Callable, Sequence

from ganlib.comparison.result import Comparison, Entry
from ganlib.metrics.report import Score

SCORES = {
    "frechet": "Fréchet ↓",
    "kernel": "kernel ↓",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "class_agreement": "class agreement",
}
"""The scores of the table, where any entry has them, in their order."""

MILD = ("ok", "narrow", "poor", "not judged", "interrupted")
"""Words that are no alarm."""


def markdown(found: Comparison) -> str:
    """The table, what its figures are, and a line on each entry that is not ``ok``."""
    scores = [name for name in SCORES if any(_score(entry, name) is not None for entry in found.entries)]
    header = ["recipe", "verdict", *(SCORES[name] for name in scores)]
    header += ["items", "items/s", "CPU s", "peak MB", "parameters G + D"]
    rows = [_row([e for e in found.entries if e.name == name], scores) for name in found.names()]
    baseline = _of_real_data(found, scores)
    rows += [["*real data*", "", *baseline, "", "", "", "", ""]] if any(baseline) else []
    lines = [_line(header), _line(["---"] * 2 + ["---:"] * (len(header) - 2)), *map(_line, rows)]
    remarks = [f"- `{e.name}`, seed {e.seed}: {remark}" for e in found.entries if (remark := _remark(e))]
    remarks += _labelled(found)
    told = [f"{name}: {value}" for name, value in found.protocol.items() if value is not None]
    parts = ["\n".join(lines), *(["\n".join(remarks)] if remarks else []), _uncertainty(found), "; ".join(told) + "."]
    return "\n\n".join(parts) + "\n"


def _labelled(found: Comparison) -> list[str]:
    """Which recipes had the labels of the data, where some had and some had not."""
    given = {entry.name: entry.labels for entry in found.entries if entry.items}
    without = ", ".join(f"`{name}`" for name, labels in given.items() if not labels)
    return (
        [f"- Trained without the labels, which the others had: {without}."] if without and any(given.values()) else []
    )


def headline(entry: Entry, *, brief: bool = False) -> str:
    """One training in a line: its verdict, the distance that is measured, and what it cost."""
    told = [_word(entry)]
    for name in ("frechet", "kernel"):
        if (score := _score(entry, name)) is not None and score.value is not None:
            told.append(f"{SCORES[name].split()[0]} {score.value:.3g}")
            break
    if not brief:
        told += [f"{entry.items:,} items", f"{entry.cost.cpu_seconds:,.0f} CPU-seconds"] if entry.items else []
        told += [entry.reason or entry.why] if entry.reason or entry.why else []
    return ", ".join(told)


def _row(entries: Sequence[Entry], scores: Sequence[str]) -> list[str]:
    """The mean over the seeds of one recipe; states and verdicts that differ are all named."""
    words = [_word(entry) for entry in entries]
    named = ", ".join(
        word if words.count(word) == len(words) else f"{word} ({words.count(word)} of {len(words)})"
        for word in dict.fromkeys(words)
    )
    parts = [entry.parameters for entry in entries if entry.parameters]
    parameters = " + ".join(_short(parts[0].get(name)) for name in ("generator", "discriminator")) if parts else "–"
    trained = [entry for entry in entries if entry.items]
    return [
        f"`{entries[0].name}`",
        named if {*words} <= {*MILD} else f"**{named}**",
        *(_cell([score for entry in entries if (score := _score(entry, name)) is not None]) for name in scores),
        _mean(trained, lambda entry: entry.items, ",.0f"),
        _mean(trained, lambda entry: entry.items_per_second, ",.0f"),
        _mean(trained, lambda entry: entry.cost.cpu_seconds, ",.0f"),
        _mean(trained, lambda entry: entry.cost.peak_bytes / 1e6 or None, ",.0f"),
        parameters,
    ]


def _word(entry: Entry) -> str:
    return entry.verdict if entry.state == "finished" and entry.verdict else entry.state


def _remark(entry: Entry) -> str:
    told = [entry.reason] if entry.state != "finished" else []
    told += [entry.why] if entry.why and entry.why != entry.reason else []
    return f"{_word(entry)}. {' '.join(told)}" if told else ""


def _score(entry: Entry, name: str) -> Score | None:
    score = entry.scores.get(name)
    return score if score is not None and score.value is not None else None


def _cell(scores: Sequence[Score]) -> str:
    """Of one seed the score and its own interval; of several their mean and standard deviation."""
    values = [score.value for score in scores if score.value is not None]
    if not values:
        return "–"
    if len(values) > 1:
        return f"{statistics.mean(values):.3g} ± {statistics.stdev(values):.2g}"
    low, high = scores[0].low, scores[0].high
    return f"{values[0]:.3g}" if low is None or high is None else f"{values[0]:.3g} [{low:.3g}, {high:.3g}]"


def _mean(entries: Sequence[Entry], measure: Callable[[Entry], float | None], form: str) -> str:
    values = [value for entry in entries if (value := measure(entry)) is not None]
    return format(statistics.mean(values), form) if values else "–"


def _of_real_data(found: Comparison, names: Sequence[str]) -> list[str]:
    """What fresh real items score in the place of samples: the same for all, since they are the same items."""
    told = []
    for name in names:
        values = [score.real_baseline for entry in found.entries if (score := _score(entry, name)) is not None]
        known = [value for value in values if value is not None]
        told.append(f"{statistics.median(known):.3g}" if known else "")
    return told


def _uncertainty(found: Comparison) -> str:
    several = max((sum(entry.name == name for entry in found.entries) for name in found.names()), default=0) > 1
    if several:
        return "Scores are mean ± standard deviation over the seeds."
    return (
        "Intervals are 95 % of each score's own, for the draw of samples and held-out items: one seed says nothing of "
        "how another training would end. Pass `--seeds 3`."
    )


def _short(count: int | None) -> str:
    if count is None:
        return "0"
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
