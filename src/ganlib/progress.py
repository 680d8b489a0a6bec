"""Showing a training to a person: a bar on a terminal, plain lines elsewhere, JSON lines for machines."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ganlib.fitting import Progress

Style = Literal["auto", "bar", "lines", "json", "none"]
LINE_SECONDS = 15.0


def shown(events: Iterable[Progress], style: Style, title: str, unit: str = "items") -> Iterator[Progress]:
    """Pass the events on, showing them on the way; `unit` is what is counted."""
    if style == "auto":
        style = "bar" if sys.stderr.isatty() else "lines"
    match style:
        case "bar":
            yield from _as_bar(events, title, unit)
        case "lines":
            yield from _as_lines(events, title, unit)
        case "json":
            yield from _as_json(events)
        case "none":
            yield from events


def say(message: str, style: Style) -> None:
    """One line to the person who waits, on standard error: standard output belongs to machines."""
    if style != "none":
        with contextlib.suppress(OSError):  # a terminal that was closed
            sys.stderr.write(message + "\n")
            sys.stderr.flush()


def describe(event: Progress, terms: dict[str, float], score: float | None) -> str:
    """The losses and the score in one short line."""
    short = {"discriminator/adversarial": "D", "generator/adversarial": "G"}
    parts = [f"{short.get(name, name.partition('/')[2])} {value:.3g}" for name, value in terms.items()]
    if score is not None:
        parts.append(f"score {score:.3g}")
    if event.items_per_second:
        parts.append(f"{event.items_per_second:,.0f}/s")
    return "  ".join(parts)


def _as_bar(events: Iterable[Progress], title: str, unit: str) -> Iterator[Progress]:
    columns = (
        TextColumn(title),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn(f"{{task.completed:,}} of {{task.total:,}} {unit}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[losses]}"),
    )
    terms: dict[str, float] = {}
    score: float | None = None
    with Bar(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task(title, losses="", total=1)
        for event in events:
            terms, score = event.terms or terms, event.score if event.score is not None else score
            for notice in event.notices:
                bar.console.print(notice, markup=False, highlight=False)
            bar.update(
                task,
                completed=event.items_seen,
                total=max(event.items_seen, event.total_items),
                losses=describe(event, terms, score),
            )
            yield event


def _as_lines(events: Iterable[Progress], title: str, unit: str) -> Iterator[Progress]:
    terms: dict[str, float] = {}
    score: float | None = None
    printed = started = time.monotonic()
    estimated = False
    for event in events:
        terms, score = event.terms or terms, event.score if event.score is not None else score
        for notice in event.notices:
            say(notice, "lines")
        if not estimated and event.items_per_second and time.monotonic() - started > 3:
            estimated = True
            minutes = (event.total_items - event.items_seen) / event.items_per_second / 60
            say(f"about {minutes:.1f} minutes to go at {event.items_per_second:,.0f} {unit} a second", "lines")
        last = event.items_seen >= event.total_items
        if last or time.monotonic() - printed > LINE_SECONDS:
            printed = time.monotonic()
            share = min(100.0, 100 * event.items_seen / event.total_items)  # the last batch may pass the budget
            line = f"{title}  {share:3.0f} %  {event.items_seen:,} {unit}  {describe(event, terms, score)}"
            say(line, "lines")
        yield event


def _as_json(events: Iterable[Progress]) -> Iterator[Progress]:
    for event in events:
        if event.terms is not None or event.score is not None or event.notices:
            record: dict[str, object] = {
                "items": event.items_seen,
                "total_items": event.total_items,
                "seconds": round(event.seconds, 2),
            }
            record |= event.terms or {}
            if event.score is not None:
                record["score"] = event.score
            if event.notices:
                record["notices"] = list(event.notices)
            try:
                sys.stdout.write(json.dumps(record) + "\n")
                sys.stdout.flush()
            except BrokenPipeError:  # a reader that has left does not end the training
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), sys.stdout.fileno())
        yield event
