"""What a training does about a value that is not finite: it leaves the step out, goes back, or stops, and says so."""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from ganlib import GAN, fitting, saving
from ganlib.core import Batch, Draws, Health, Plan, Spec
from ganlib.errors import DivergedError
from ganlib.metrics.health import Finding
from ganlib.recipe import Recipe, Setting
from ganlib.recipes import r3 as module
from ganlib.recipes.r3 import r3
from ganlib.session import Session
from ganlib.tasks.generate import Generate
from ganlib.training import checkpoint
from ganlib.training.run import Run
from ganlib.training.runtime import Runtime
from ganlib.training.state import create, restore
from ganlib.training.step import set_rates

STEP = 32
SEED = 0  # of a run with a rollback or more, and with an end


@dataclass(frozen=True)
class Spoiling(Generate):
    """Spoils the latents of the steps that `spoils` chooses by the seed of their randomness, and may end the process.

    Behind batch normalisation a spoilt latent hurts the state; in plain perceptrons it does not.
    """

    spoils: Callable[[int], bool] = lambda seed: False

    def draw(self, batch: Batch, draws: Draws) -> Batch:
        drawn = super().draw(batch, draws)
        if self.spoils(draws.generator.initial_seed()):
            drawn["latent"][0, 0] = float("nan")
        return drawn


def make_recipe(spoils: Callable[[int], bool], health: Health | None = None, network: str = "compact") -> Recipe:
    def spoilt(setting: Setting) -> Plan:
        plan = r3(network=network, width=4, latent=8, batch_items=STEP).plan(setting)  # type: ignore[arg-type]
        task = plan.task
        assert isinstance(task, Generate)
        spoiling = Spoiling(task.make_generator, task.make_discriminator, task.latent_width, spoils)
        if network == "mlp":
            from ganlib.networks.mlp import MLPGenerator

            shape = setting.spec.shape
            plain = lambda: MLPGenerator(shape, latent=8, widths=(8,), num_classes=setting.num_classes)  # noqa: E731
            spoiling = replace(spoiling, make_generator=plain)
        return replace(plan, task=spoiling, health=health or Health())

    return Recipe(spoilt, {})


class Nth:
    """True in the calls of the given numbers, counted from 1: faults that do not come back."""

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.calls = numbers, 0

    def __call__(self, seed: int) -> bool:
        self.calls += 1
        return self.calls in self.numbers


def fitted(recipe: Recipe, steps: int = 50, run: Path | None = None) -> tuple[GAN, list[dict]]:
    gan = GAN(recipe, seed=1, device="cpu").fit("digits", items=steps * STEP, run=run, progress="none")
    assert gan.events_[-1]["event"] == "finished"
    return gan, gan.events_[:-1]


def test_a_bad_step_is_left_out_and_the_training_goes_on():
    gan, events = fitted(make_recipe(Nth(10), network="mlp"))
    assert [(event["event"], event["kind"], event["name"], event["items"]) for event in events] == [
        ("skipped", "input", "latent", 9 * STEP)
    ]
    assert gan.history_[-1]["items"] == 50 * STEP
    assert all(torch.isfinite(value).all() for value in gan.model_.generator.state_dict().values())


def test_a_signal_during_a_bad_step_loses_nothing(tmp_path: Path):
    calls = []

    def spoils_and_stops(seed: int) -> bool:
        calls.append(seed)
        if len(calls) == 10:
            signal.raise_signal(signal.SIGINT)
        return len(calls) == 10

    with pytest.raises(KeyboardInterrupt):
        fitted(make_recipe(spoils_and_stops, network="mlp"), run=tmp_path / "run")
    newest, _ = checkpoint.newest(Run.read(tmp_path / "run").checkpoints)
    assert newest is not None and newest.facts["items_seen"] == 10 * STEP


def test_three_bad_steps_in_a_row_lead_back_to_the_last_healthy_look():
    gan, events = fitted(make_recipe(Nth(10, 11, 12), network="mlp"))
    assert [event["event"] for event in events] == ["skipped", "skipped", "rollback"]
    # Looks are at every second step; the last before the ninth step had ended was after the eighth.
    assert (events[-1]["items"], events[-1]["to_items"], events[-1]["rate_factor"]) == (11 * STEP, 8 * STEP, 0.5)
    items = [record["items"] for record in gan.history_]
    assert items == sorted(items) and len(set(items)) == 25 and items[-1] == 50 * STEP


def test_two_bad_steps_with_a_good_one_between_lead_nowhere():
    _, events = fitted(make_recipe(Nth(10, 11, 13, 14), network="mlp"))
    assert [event["event"] for event in events] == ["skipped"] * 4


def test_a_hurt_buffer_leads_back_at_once_and_the_rates_are_halved():
    gan, events = fitted(make_recipe(Nth(10)))
    assert [event["event"] for event in events] == ["rollback"]
    assert all(torch.isfinite(value).all() for value in gan.model_.generator.state_dict().values())


def test_before_the_first_look_the_training_begins_anew_with_other_weights():
    _, events = fitted(make_recipe(Nth(1)))
    assert (events[0]["event"], events[0]["to_items"]) == ("rollback", 0)


@pytest.mark.parametrize("in_folder", [False, True])
def test_a_fault_that_stays_stops_the_training_after_three_rollbacks(in_folder: bool, tmp_path: Path):
    run = tmp_path / "run" if in_folder else None
    always = make_recipe(lambda seed: seed % 5 == 0)
    with pytest.raises(DivergedError, match=r"input latent is nan in the step after item .* after 3 rollbacks"):
        fitted(always, run=run)
    if run is not None:
        events = Run.read(run).events()
        assert [event["event"] for event in events] == ["rollback"] * 3 + ["stopped"]
        assert events[-2]["rate_factor"] == 0.125
        for folder in checkpoint.listed(run / "checkpoints"):
            tensors, _ = checkpoint.load(folder)
            assert all(torch.isfinite(value).all() for group in tensors.values() for value in group.values())


def test_the_plan_may_say_stop_or_note():
    with pytest.raises(DivergedError, match="latent is nan"):
        fitted(make_recipe(Nth(10), Health(nonfinite="stop"), network="mlp"))
    _, events = fitted(make_recipe(Nth(*range(10, 20)), Health(nonfinite="note"), network="mlp"))
    assert [event["event"] for event in events] == ["skipped"] * 10
    with pytest.raises(DivergedError, match="latent is nan"):
        fitted(make_recipe(Nth(10), Health(nonfinite="note")))  # a hurt state cannot be gone on with


class Crash(BaseException):
    """The end of a process, as far as files are concerned."""


def test_a_run_that_is_stopped_around_rollbacks_ends_in_the_bits_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    crashes: list[int] = []

    def spoils(seed: int) -> bool:
        """A fault that the seed of the step decides, so that it comes back after a crash, and crashes where told."""
        calls[0] += 1
        if calls[0] in crashes:
            raise Crash
        return seed % 23 == 0

    def task_of(*arguments: object) -> Spoiling:
        task = original(*arguments)
        return Spoiling(task.make_generator, task.make_discriminator, task.latent_width, spoils)

    original, calls = module._task, [0]
    monkeypatch.setattr(module, "_task", task_of)
    recipe = r3(network="compact", width=4, latent=8, batch_items=STEP)

    def lives(run: Path) -> dict[str, bytes]:
        calls[0] = 0
        for _ in range(20):
            try:
                gan = GAN(recipe, seed=SEED).fit(
                    "digits", items=50 * STEP, run=run, progress="none", checkpoint_seconds=0.0
                )
            except Crash:
                continue
            assert [event["event"] for event in gan.events_].count("rollback") >= 1
            break
        newest = checkpoint.listed(run / "checkpoints")[-1]
        files = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
        facts = json.loads((newest / "facts.json").read_text())
        facts.pop("seconds")
        logs = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "events.jsonl")}
        return files | logs | {"facts": json.dumps(facts).encode()}

    restores = [0]

    def crashing_restore(*arguments: object) -> None:
        restores[0] += 1
        if restores[0] == 1:
            raise Crash
        restore(*arguments)  # type: ignore[arg-type]

    whole = lives(tmp_path / "whole")
    monkeypatch.setattr(saving, "restore", crashing_restore)  # in the middle of a rollback
    crashes += [5, 13, 14, 22, 37]
    stopped = lives(tmp_path / "stopped")
    assert [name for name in whole if whole[name] != stopped[name]] == []


def test_a_signal_during_the_look_that_goes_back_does_not_lose_the_rollback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks, look = [0], fitting.look

    def looking(session: Session) -> float | None:
        looks[0] += 1
        if looks[0] == 3:
            signal.raise_signal(signal.SIGTERM)
        return look(session)

    def planted(signs: object) -> list[Finding]:
        return [Finding("collapse", "spread", 12 * STEP, 0.1, 0.5, "planted", "nothing")] if looks[0] == 3 else []

    monkeypatch.setattr(fitting, "look", looking)
    monkeypatch.setattr(fitting, "findings", planted)
    recipe = r3(network="mlp", width=4, latent=8, batch_items=STEP)
    with pytest.raises(SystemExit):
        GAN(recipe, seed=SEED).fit("digits", items=100 * STEP, run=tmp_path / "run", progress="none")
    assert looks[0] == 3, "the training ended at the look with the signal"
    assert [event["event"] for event in Run.read(tmp_path / "run").events()] == ["rollback"]


def test_the_factor_lowers_both_rates():
    plan = r3(network="mlp", width=4).plan(Setting(Spec("image", (1, 4, 4)), 100, "cpu"))
    state = create(plan, Runtime(), 0, 1000)
    assert state.discriminator_optimiser is not None
    rates = []
    for state.rate_factor in (1.0, 0.25):
        set_rates(state, plan)
        optimisers = (state.generator_optimiser, state.discriminator_optimiser)
        rates.append([optimiser.param_groups[0]["lr"] for optimiser in optimisers])
    assert rates[1] == [0.25 * rate for rate in rates[0]]
