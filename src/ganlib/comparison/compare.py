"""Training recipes in turn, each in a process of its own, and writing what came of it after each."""

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ganlib import __version__
from ganlib.comparison.child import POLL_SECONDS, Ended, run_child
from ganlib.comparison.contenders import Contender, contenders
from ganlib.comparison.judging import Arena, arena_of, curve, judged, sheet
from ganlib.comparison.picture import Panel, comparison_png
from ganlib.comparison.result import SETTLED, Comparison, Cost, Entry, State, from_json
from ganlib.comparison.table import headline, markdown
from ganlib.data import Data, load
from ganlib.data.load import size_of
from ganlib.data.show import save_png
from ganlib.errors import BusyError, DataError, GanlibError, RunError, UsageError
from ganlib.evaluation.material import MAX_FAKES
from ganlib.files import write_bytes
from ganlib.pace import pace_of
from ganlib.progress import Style, say
from ganlib.reading import split
from ganlib.recipe import Setting
from ganlib.stopping import StopWish, stop_wishes
from ganlib.training.run import Run
from ganlib.training.runtime import choose_device

MIN_HELD_OUT = 20
STOPPED = "the training was asked to stop; run the same command again to go on"
FILES = "compare.json", "compare.md", "compare.png"


@dataclass(frozen=True)
class Bout:
    """What is common to all trainings: options of ``ganlib fit``, and where they go."""

    out: Path
    arguments: tuple[str, ...]
    threads: int | None
    style: Style


def compare(
    data: Path | str,
    recipes: Sequence[str] | None = None,
    *,
    out: Path | str,
    minutes: float | None = None,
    items: int | None = None,
    cpu_seconds: float | None = None,
    seeds: int = 1,
    size: tuple[int, int] | int | None = None,
    validation: float | None = None,
    unconditional: bool = False,
    num_samples: int = MAX_FAKES,
    threads: int | None = None,
    device: str = "auto",
    progress: Style = "auto",
) -> Comparison:
    """Train recipes on the same data for the same budget, and judge them by the same held-out items.

    Each is a run in `out`, in a process of its own. ``compare.json``, ``compare.md`` and ``compare.png`` there are
    written anew after each. Called again it goes on: what is finished stays, what was interrupted or failed is tried
    again, and recipes and seeds that are new are added. A recipe that fails has an entry that says why.

    Args:
        data: a path, or the name of embedded data: each process reads it anew.
        recipes: names, perhaps with options such as ``"dcgan:width=32"``; None takes the usual ones that fit the data.
        out: the folder of the comparison.
        minutes: the budget of each training; or `items`, or `cpu_seconds` on the processor.
        seeds: how many trainings of each recipe, with the seeds 0, 1, ...
        size: as in :meth:`ganlib.gan.GAN.fit`.
        validation: the share of the data to hold out; the items are the same for all recipes and seeds.
        unconditional: do not use the labels. Otherwise each recipe that can use them does.
        num_samples: of each recipe, for the scores.
        threads: of each training; with `cpu_seconds` one unless given.
        device: "auto", "cpu", "cuda" or "mps".
        progress: as in :meth:`ganlib.gan.GAN.fit`.

    Raises :class:`UsageError` for an unknown recipe before anything is trained, :class:`RunError` where `out` holds
    another comparison, and KeyboardInterrupt or SystemExit after a signal, when what there is has been written.
    """
    sides = size_of(size)
    budget = {"minutes": minutes, "items": items, "cpu_seconds": cpu_seconds}
    threads = 1 if threads is None and cpu_seconds is not None else threads
    options = {**budget, "threads": threads, "validation": validation, "size": sides, "device": device}
    train, held_out, setting = _prepared(data, validation, sides, unconditional, device, budget)
    if seeds < 1 or num_samples < 2:
        raise UsageError(f"seeds={seeds}, num_samples={num_samples}: accepted are at least 1 seed and 2 samples")
    asked = contenders(recipes, setting)
    mark = {"data": str(data), "train": len(train), "sha256": train.fingerprint()["sha256"][:16]}
    mark |= {**options, "unconditional": unconditional}
    begun = _begun(Path(out), {**mark, "size": list(sides) if sides else None, "samples": num_samples})
    if threads is not None:
        torch.set_num_threads(threads)
    arena = arena_of(train, held_out, num_samples, choose_device(device))
    _same_extractor(begun, arena, out)
    bout = Bout(Path(out), _command(str(data), options), threads, progress)
    save_png(bout.out / "real.png", sheet(held_out, held_out))
    protocol = {**begun.protocol, **arena.protocol(), "ganlib": __version__}
    return _all(replace(begun, protocol=protocol), asked, seeds, bout, arena)


def _same_extractor(begun: Comparison, arena: Arena, out: Path | str) -> None:
    was, now = begun.protocol.get("extractor_digest"), arena.protocol()["extractor_digest"]
    if begun.entries and was != now:
        raise RunError(f"{out} was judged by features {str(was)[:12]}, not {str(now)[:12]}; choose another --out")


def _prepared(
    data: Path | str,
    validation: float | None,
    size: tuple[int, int] | None,
    unconditional: bool,
    device: str,
    budget: Mapping[str, float | None],
) -> tuple[Data, Data, Setting]:
    """Training and held-out items as every training will have them, and the setting that its recipe will see."""
    if not isinstance(data, str | Path):
        raise UsageError("compare reads the data anew for each recipe: save them (numpy.savez) and pass the path")
    kind = choose_device(device).split(":")[0]
    items = None if budget["items"] is None else int(budget["items"])
    pace = pace_of(items, budget["minutes"], budget["cpu_seconds"], kind)
    if pace.items is None and pace.seconds is None:
        raise UsageError("give minutes, items or cpu_seconds: all recipes get the same")
    whole = load(str(data), size=size)
    train, held_out = split(whole, validation, size)
    if held_out is None or len(held_out) < MIN_HELD_OUT:
        count = 0 if held_out is None else len(held_out)
        raise DataError(
            f"{count} of {len(whole)} items are held out, too few to judge by; give more data or validation"
        )
    conditional = whole.labels is not None and not unconditional
    return train, held_out, Setting(whole.spec, len(train), kind, pace.seconds, pace.items, conditional, size)


def _command(data: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """``ganlib fit`` with what all trainings have in common."""
    words = [sys.executable, "-m", "ganlib", "fit", data, "--json"]
    for name, value in options.items():
        if value is not None:
            told = "x".join(map(str, value)) if name == "size" else str(value)
            words += ["--cpu-seconds" if name == "cpu_seconds" else f"--{name}", told]
    return tuple(words)


def _all(begun: Comparison, asked: Sequence[Contender], seeds: int, bout: Bout, arena: Arena) -> Comparison:
    found = begun
    write(found, bout.out)
    for number, (seed, each) in enumerate((seed, each) for seed in range(seeds) for each in asked):
        before = found.of(each.name, seed)
        title = f"[{number + 1} of {seeds * len(asked)}] {each.name}, seed {seed}:"
        if before is not None and before.state in SETTLED and before.verdict:
            say(f"{title} done before", bout.style)
            continue
        with stop_wishes() as stop:
            entry = _trained(each, seed, before, bout, stop, title)
        if entry.state in SETTLED:
            write(found.with_entry(entry), bout.out)  # what it cost is known, whatever becomes of the judging
            entry = _judged(entry, bout.out, arena)
        found = found.with_entry(entry)
        write(found, bout.out)
        say(f"{title} {headline(entry)}", bout.style)
        if stop.signal is not None:
            say(f"stopped by {stop.signal.name}; run the same command again to go on", bout.style)
            if stop.signal is signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(128 + stop.signal)
    return found


def _trained(each: Contender, seed: int, before: Entry | None, bout: Bout, stop: StopWish, title: str) -> Entry:
    """Train, or go on; the entry without scores."""
    cost = before.cost if before is not None else Cost()
    entry = Entry(each.name, seed, each.folder(seed), "refused", each.refusal, each.labels, cost=cost)
    if each.refusal:
        return entry
    say(f"{title} training{'' if before is None else ' goes on'}", bout.style)
    _let_go(bout.out / entry.folder, stop, title, bout.style)
    if stop.signal is not None:
        return replace(entry, state="interrupted", reason=STOPPED)
    command = [*bout.arguments, *each.arguments(), "--seed", str(seed), "--out", str(bout.out / entry.folder)]
    command += [] if each.labels else ["--unconditional", "true"]
    log = bout.out / "logs" / f"{entry.folder}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    ended = run_child(command, log, stop, threads=bout.threads, title=title, style=bout.style)
    state, reason = outcome(ended)
    return replace(entry, state=state, reason=reason, cost=cost.plus(ended.cost))


def _let_go(folder: Path, stop: StopWish, title: str, style: Style) -> None:
    """Wait for the training that a killed comparison has left behind: nothing that it has learned is lost."""
    told = False
    while folder.exists() and stop.signal is None:
        try:
            Run.open(folder).close()
            return
        except BusyError as error:
            if not told:
                say(f"{title} waiting for the training of a comparison that was killed: {error}", style)
            told = True
        except GanlibError:
            return  # the training will say it
        time.sleep(POLL_SECONDS)


def outcome(ended: Ended) -> tuple[State, str]:
    """What became of a training, and why it is not finished."""
    if ended.status == 0:
        return "finished", ""
    if ended.status in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP):
        return "interrupted", STOPPED
    try:
        told: dict[str, Any] = json.loads(ended.last_line)
        error, kind = str(told["error"]), str(told["kind"])
    except (ValueError, KeyError, TypeError):
        if ended.status == 128 + signal.SIGKILL:
            return (
                "out of memory",
                "the system killed the process, most likely for its memory: lower batch_items or width",
            )
        return "failed", f"the process ended with status {ended.status}: {ended.complaint or 'it said nothing'}"
    if "out of memory" in error:
        return "out of memory", error
    if kind == "DivergedError":
        return "diverged", error
    return ("refused" if kind in ("UsageError", "DataError") else "failed"), error


def _judged(entry: Entry, out: Path, arena: Arena) -> Entry:
    """With its scores; a run that cannot be judged says so, and the others go on."""
    try:
        entry, picture = judged(entry, out / entry.folder, arena)
        save_png(out / f"{entry.folder}.png", picture)
    except (GanlibError, ValueError, RuntimeError, MemoryError) as error:
        entry = replace(entry, verdict="not judged", why=" ".join(str(error).split()))
    return replace(entry, verdict="diverged") if entry.state == "diverged" else entry


def _begun(out: Path, protocol: dict[str, Any]) -> Comparison:
    """The comparison in the folder, or a new one. Raises :class:`RunError` where it is another."""
    path = out / FILES[0]
    if not path.exists():
        return Comparison(protocol)
    found = from_json(path.read_text(), str(path))
    for name, value in protocol.items():
        if found.protocol.get(name) != value:
            raise RunError(f"{out} was begun with {name} {found.protocol.get(name)}, not {value}; choose another --out")
    return found


def write(found: Comparison, out: Path) -> None:
    """Table, picture and JSON, each whole or as it was."""
    write_bytes(out / FILES[0], found.to_json().encode())
    write_bytes(out / FILES[1], markdown(found).encode())
    write_bytes(out / FILES[2], picture(found, out))


def picture(found: Comparison, out: Path) -> bytes:
    """The picture of the first seed of each recipe, from the grids and the runs in the folder."""
    first = [next(entry for entry in found.entries if entry.name == name) for name in found.names()]
    panels = [Panel("real data", "", _grid(out / "real.png"))]
    panels += [Panel(entry.name, headline(entry, brief=True), _grid(out / f"{entry.folder}.png")) for entry in first]
    curves = {entry.name: curve(out / entry.folder) for entry in first if (out / entry.folder / "run.json").exists()}
    of_processor = found.protocol.get("cpu_seconds") is not None
    return comparison_png(panels, curves, unit="CPU-seconds" if of_processor else "seconds")


def _grid(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))
