"""Beginning a training or taking it up again: what must agree with the run folder, and what is only said."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ganlib import model
from ganlib.core import Plan
from ganlib.data import Data
from ganlib.errors import RunError
from ganlib.recipe import Recipe, Setting
from ganlib.training import checkpoint
from ganlib.training.run import Run
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_tensors


@dataclass(frozen=True)
class Opened:
    """A state ready to train, the seconds already spent on it, and what the user should be told."""

    plan: Plan
    state: State
    recipe: Recipe
    setting: Setting
    facts: dict[str, Any]
    used_seconds: float
    notices: tuple[str, ...]


def begin(
    recipe: Recipe,
    setting: Setting,
    data: Data,
    label_share: tuple[float, ...],
    runtime: Runtime,
    seed: int,
    run: Run | None,
) -> Opened:
    """A new training; its recipe and the fingerprint of its data are written first."""
    facts = model.to_json(recipe, setting, label_share, seed)
    plan = recipe.plan(setting)
    state = create(plan, runtime, seed, plan.items)
    if run is not None:
        size_bytes = sum(tensor.nbytes for group in to_tensors(state).values() for tensor in group.values())
        run.check_space(2 * size_bytes)  # the optimisers' numbers come with the first step
        run.write_facts("recipe.json", {**facts, "precision": runtime.precision, "compiled": runtime.compiled})
        run.write_facts("data.json", {"source": data.source, **data.fingerprint()})
        run.truncate_log(0)
    return Opened(plan, state, recipe, setting, facts, 0.0, ())


def resume(run: Run, asked: Recipe | None, data: Data, runtime: Runtime, seed: int | None) -> Opened | None:
    """The training in the folder where it stopped; None where it has not begun.

    Raises :class:`RunError` where the recipe, its options, the seed or the data are not those of the run.
    """
    if not (run.folder / "recipe.json").exists() or not checkpoint.listed(run.checkpoints):
        return None
    facts = run.read_facts("recipe.json")
    recipe, setting, _ = model.from_json(facts, str(run.folder))
    if asked is not None and asked.to_json() != recipe.to_json():
        raise RunError(
            f"{run.folder} was begun with {_told(recipe)}, not {_told(asked)}; leave it out, or choose another --out"
        )
    if seed is not None and seed != facts["seed"]:
        raise RunError(
            f"{run.folder} was begun with seed {facts['seed']}, not {seed}; leave it out, or choose another --out"
        )
    before, now = run.read_facts("data.json"), {"source": data.source, **data.fingerprint()}
    changed = [name for name in now if name != "source" and now[name] != before.get(name)]
    if changed:
        differences = ", ".join(f"{name} was {_short(before.get(name))} and is {_short(now[name])}" for name in changed)
        raise RunError(f"the data are not those {run.folder} was begun with: {differences}; choose another --out")
    saved, skipped = checkpoint.newest(run.checkpoints)
    if saved is None:
        return None
    plan = recipe.plan(setting)
    state = create(plan, runtime, facts["seed"], plan.items)
    restore(state, saved.tensors, saved.facts)
    run.truncate_log(state.items_seen)
    notices = [f"{reason}; taking the one before it" for _, reason in skipped]
    notices.append(f"resuming {run.folder} at item {state.items_seen:,}")
    notices += _inexact(facts, runtime)
    return Opened(plan, state, recipe, setting, facts, float(saved.facts["seconds"]), tuple(notices))


def _inexact(facts: dict[str, Any], runtime: Runtime) -> list[str]:
    """Why the resumed run will not be the bits of an uninterrupted one, if so."""
    made, now = facts["made_with"], model.made_with()
    changes = [
        f"{name} was {made.get(name)}, is {now[name]}"
        for name in ("torch", "threads", "processor")
        if made.get(name) != now[name]
    ]
    if facts["setting"]["device"] != runtime.device:
        changes.append(f"device was {facts['setting']['device']}, is {runtime.device}")
    return [f"not bit-exact from here on: {', '.join(changes)}"] if changes else []


def _told(recipe: Recipe) -> str:
    options = ", ".join(f"{name}={value}" for name, value in recipe.options.items() if value is not None)
    return f"recipe {recipe.name} ({options})"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def label_shares(data: Data) -> tuple[float, ...]:
    """How often each class occurs; empty without labels."""
    if data.labels is None:
        return ()
    counts = np.bincount(data.labels, minlength=len(data.spec.classes))
    return tuple((counts / counts.sum()).tolist())
