"""Beginning a training or taking it up again: what must agree with the run folder, and what is only said."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganlib import model, recipes
from ganlib.core import Draws, Penalty, Plan
from ganlib.data import Data
from ganlib.errors import DataError, MissingError, RunError, UsageError
from ganlib.pace import Pace
from ganlib.penalties import differentiable_twice, without_double_backward
from ganlib.reading import label_shares, split
from ganlib.recipe import Recipe, Setting
from ganlib.training import checkpoint
from ganlib.training.checkpoint import Checkpoint
from ganlib.training.run import Run
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_tensors
from ganlib.training.team import Team


@dataclass(frozen=True)
class Request:
    """What a call of fit asks for. `load` reads the data; `run` is the open run folder, if any."""

    load: Callable[[], Data]
    size: tuple[int, int] | None
    validation: object
    conditional: bool | None
    pace: Pace
    runtime: Runtime
    asked: Recipe | None
    seed: int | None
    run: Run | None
    checkpoint_seconds: float
    in_folder: bool = False  # there is a run folder; of several processes the first alone has it as `run`

    def with_data(self) -> "Request":
        """The same with the data read already."""
        data = self.load()
        return replace(self, load=lambda: data)


@dataclass(frozen=True)
class Opened:
    """A state ready to train, new or taken up again, the seconds spent on it, and what the user should be told."""

    plan: Plan
    state: State
    recipe: Recipe
    setting: Setting
    facts: dict[str, Any]
    used_seconds: float = 0.0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """All that training needs: networks, data, and what the model will be known by."""

    plan: Plan
    state: State
    recipe: Recipe
    setting: Setting
    facts: dict[str, Any]
    train: Data
    held_out: Data | None
    label_share: tuple[float, ...]
    notices: tuple[str, ...]


def prepare(request: Request) -> Prepared:
    """Read the data, split them, and begin the training or take it up again; sets the budget of `request.pace`.

    Of several processes the first reads the run folder and tells the others.
    """
    data, run, runtime = request.load(), request.run, request.runtime
    _check_same(data, runtime.team)
    if request.conditional and data.labels is None:
        raise DataError(f"{data.source} has no labels to condition on; give labels, or sub-folders by class")
    opened = resume(run, request.asked, data, runtime, request.seed) if request.in_folder or run is not None else None
    recipe = request.asked or recipes.find(recipes.DEFAULT)()
    wanted = request.conditional is not False and (recipe.labels != "unused" or request.conditional is True)
    conditional = wanted and data.labels is not None
    if opened is not None:
        conditional = opened.setting.conditional
    shares = label_shares(data) if conditional else ()
    seed = opened.facts["seed"] if opened is not None else request.seed or 0
    material = (recipe if opened is None else opened.recipe).material
    train, held_out = split(data, request.validation, request.size, material)
    if held_out is not None:
        _check_same(held_out, runtime.team)
    if opened is not None and request.conditional is not None and request.conditional != opened.setting.conditional:
        kind = "with" if opened.setting.conditional else "without"
        raise RunError(f"the run was begun {kind} its labels; leave conditional as it was, or choose another --out")
    pace = request.pace
    if opened is None:
        kind = runtime.device.split(":")[0]
        setting = Setting(data.spec, len(train), kind, pace.seconds, pace.items, conditional, request.size)
        opened = begin(recipe, setting, data, shares, runtime, seed, run)
    if run is not None:
        _check_held_out(run, held_out)
    plan, notice = suited(opened.plan, opened.state, train, conditional, runtime)
    if not conditional and train.labels is not None:
        train = replace(train, labels=None)
    pace.used_seconds = opened.used_seconds
    if pace.seconds is None:
        opened.state.total_items = pace.items or opened.plan.items
    return Prepared(
        plan,
        opened.state,
        opened.recipe,
        opened.setting,
        opened.facts,
        train,
        held_out,
        shares,
        (
            *about(data, opened, run),
            *_length(pace, opened.plan, held_out),
            *notice,
            *_apart(opened, runtime),
            *opened.notices,
        ),
    )


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
    check_batch(plan, runtime.team)
    state = create(plan, runtime, seed, plan.items)
    if run is not None:
        size_bytes = sum(tensor.nbytes for group in to_tensors(state).values() for tensor in group.values())
        run.check_space(2 * size_bytes)  # the optimisers' numbers come with the first step
        run.write_facts("recipe.json", {**facts, **_computed_by(runtime)})
        run.write_facts("data.json", {"source": data.source, **data.fingerprint()})
        run.rewind(0)
        run.truncate_events(0)
    return Opened(plan, state, recipe, setting, facts)


def _check_same(data: Data, team: Team) -> None:
    """Raises :class:`DataError` where processes, perhaps of several machines, have read different data."""
    digests = team.all("" if team.alone else data.fingerprint()["sha256"])
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise DataError(
            f"process {others[0]} has read other data from {data.source} than the first; put the same on every machine"
        )


def check_batch(plan: Plan, team: Team) -> None:
    """Raises :class:`UsageError` for a batch that cannot be dealt to the processes and their micro-batches."""
    each = team.size * plan.accumulate
    if plan.batch_items % each and not team.alone:
        below = plan.batch_items // each * each
        fitting = f"{below} or {below + each}" if below else f"{each}"
        parts = f" of {plan.accumulate} micro-batches each" * (plan.accumulate > 1)
        raise UsageError(
            f"batch_items={plan.batch_items} cannot be dealt to {team.size} processes{parts}; accepted are multiples "
            f"of {each}, such as {fitting}"
        )


def resume(run: Run | None, asked: Recipe | None, data: Data, runtime: Runtime, seed: int | None) -> Opened | None:
    """The training in the folder where it stopped; None where it has not begun.

    Only the first of several processes has the run. Raises :class:`RunError` where the recipe, its options, the seed or
    the data are not those of the run.
    """
    saved, skipped = _saved(run, asked, data, seed) if run is not None else (None, [])
    saved = checkpoint.of_first(saved, runtime.team)
    if saved is None:
        return None
    facts = runtime.team.first(run.read_facts("recipe.json") if run is not None else None)
    recipe, setting, _ = model.from_json(facts, "recipe.json")
    plan = recipe.plan(setting)
    check_batch(plan, runtime.team)
    state = create(plan, runtime, facts["seed"], plan.items)
    restore(state, saved.tensors, saved.facts)
    notices = checkpoint.passed_over(skipped)
    if run is not None:
        run.rewind(state.items_seen)
        run.truncate_events(int(saved.facts.get("events", 0)))
        notices.append(f"resuming {run.folder} at item {state.items_seen:,}")
    notices += _inexact(facts, runtime)
    return Opened(plan, state, recipe, setting, facts, float(saved.facts["seconds"]), tuple(notices))


def _saved(
    run: Run, asked: Recipe | None, data: Data, seed: int | None
) -> tuple[Checkpoint | None, list[tuple[Path, str]]]:
    """The newest checkpoint of the run, if it is one of this recipe, seed and data, and the damaged ones."""
    begun, saved_ones = (run.folder / "recipe.json").exists(), checkpoint.listed(run.checkpoints)
    if saved_ones and not begun:
        raise MissingError(
            f"{run.folder} holds checkpoints but no recipe.json, which says what they are; "
            "restore it, or choose another --out"
        )
    if not saved_ones:
        return None, []
    facts = run.read_facts("recipe.json")
    recipe, _, _ = model.from_json(facts, str(run.folder))
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
    return checkpoint.newest(run.checkpoints)


def _check_held_out(run: Run, held_out: Data | None) -> None:
    """The validation data of a run stay the same: others would have been trained on, and the scores not comparable."""
    mark = {"count": 0, "sha256": None}
    if held_out is not None:
        mark = {name: held_out.fingerprint()[name] for name in mark}
    if not (run.folder / "validation.json").exists():
        run.write_facts("validation.json", mark)
    elif (before := run.read_facts("validation.json")) != mark:
        raise RunError(
            f"{run.folder} was begun with {before['count']:,} items held out, not these {mark['count']:,}; "
            "give the same validation, or choose another --out"
        )


def _inexact(facts: dict[str, Any], runtime: Runtime) -> list[str]:
    """Why the resumed run will not be the bits of an uninterrupted one, if so."""
    made, now = facts["made_with"], model.made_with()
    changes = [
        f"{name} was {made.get(name)}, is {now[name]}"
        for name in ("ganlib", "torch", "threads", "processor")
        if made.get(name) != now[name]
    ]
    kind = runtime.device.split(":")[0]
    if facts["setting"]["device"] != kind:
        changes.append(f"device was {facts['setting']['device']}, is {kind}")
    for name, value in _computed_by(runtime).items():
        if facts.get(name, value) != value:
            changes.append(f"{name} was {facts[name]}, is {value}")
    return [f"not bit-exact from here on: {', '.join(changes)}"] if changes else []


def _computed_by(runtime: Runtime) -> dict[str, Any]:
    return {"precision": runtime.precision, "compiled": runtime.compiled, "processes": runtime.team.size}


def _told(recipe: Recipe) -> str:
    options = ", ".join(f"{name}={value}" for name, value in recipe.options.items() if value is not None)
    names = ", ".join(remedy.name for remedy in recipe.remedies)
    return f"recipe {recipe.name} ({options})" + f" and the remedies {names}" * bool(names)


def _apart(opened: Opened, runtime: Runtime) -> tuple[str, ...]:
    """What several processes together do not do as one would."""
    if runtime.team.alone or not (opened.recipe.remedies or opened.plan.augmentation):
        return ()
    return (
        "remedies that look at a whole batch (matching, minibatch, top_k, packing with classes) see the rows of each "
        "process: the gradients are not those of one; those of deviation, packing and apa are where the rows of each "
        "process make whole groups, whole packs and an even number",
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def suited(plan: Plan, state: State, data: Data, conditional: bool, runtime: Runtime) -> tuple[Plan, tuple[str, ...]]:
    """The plan with penalties that the discriminator and compilation can bear, and what to say of a change.

    Compiled code cannot be differentiated twice: with an exact penalty in every step nothing would stay compiled.
    """
    found = plan.objective.penalties.values()
    exact = [item for item in found if isinstance(item.penalty, Penalty) and item.penalty.double_backward]
    if not exact or state.discriminator is None:
        return plan, ()
    first = data.batch(np.arange(2))
    if not conditional:
        first.pop("label", None)
    batch, draws = runtime.move(first), Draws(torch.Generator(runtime.device).manual_seed(0))
    if not differentiable_twice(state.discriminator, batch["real"], plan.task.condition(batch, draws)):
        reason = "the discriminator has no second derivative"
    elif runtime.compiled and any(item.every_steps == 1 for item in exact):
        reason = "compiled code has no second derivative"
    else:
        return plan, ()
    return replace(plan, objective=without_double_backward(plan.objective)), (
        f"{reason}: penalties by finite difference",
    )


def _length(pace: Pace, plan: Plan, held_out: Data | None) -> list[str]:
    """How long a training without a budget will last; its time follows when the speed is known."""
    if pace.items is not None or pace.seconds is not None:
        return []
    early = "" if held_out is None else f", fewer if the score on {len(held_out):,} held-out items stands still"
    return [f"no budget given: up to {plan.items:,} items{early}; pass minutes or items to choose"]


def about(data: Data, opened: Opened, run: Run | None) -> list[str]:
    """What is trained on what, in one line, and what was left out."""
    spec = data.spec
    size = (
        "x".join(str(side) for side in (*spec.shape[1:], spec.shape[0]))
        if spec.kind == "image"
        else f"{spec.shape[0]} columns"
    )
    classes = ", unconditional" * (not spec.attributes)
    if opened.setting.conditional:
        classes = f", {len(spec.classes)} classes"
    choice = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in opened.plan.notes.items()
    )
    names = ", ".join(remedy.name for remedy in opened.recipe.remedies)
    about_recipe = f"recipe {opened.recipe.name}" + f" ({choice})" * bool(choice) + f" with {names}" * bool(names)
    told = [f"{len(data):,} {spec.kind}s {size} from {data.source}{classes}; {about_recipe} on {opened.setting.device}"]
    if data.labels is not None and not opened.setting.conditional:
        unused = opened.recipe.labels == "unused"
        reason = f"recipe {opened.recipe.name} has no use for them" if unused else "unconditional"
        told.append(f"the labels are not used ({reason})")
    if (step_items := opened.plan.batch_items * opened.plan.discriminator_steps) > opened.setting.num_items:
        told.append(f"a step takes {step_items:,} items, more than there are: each is in it several times")
    if data.unreadable:
        name, reason = data.unreadable[0]
        listed = "; all are listed in unreadable.json" if run is not None else ""
        told.append(
            f"{len(data.unreadable):,} files could not be read and are left out, the first {name}: {reason}{listed}"
        )
        if run is not None:
            run.write_facts("unreadable.json", [list(pair) for pair in data.unreadable])
    return told
