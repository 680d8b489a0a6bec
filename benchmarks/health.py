"""What goes wrong in a training, planted: is it noticed, when, and is a healthy one left alone?

    python benchmarks/health.py injections [--count 200] [--json]
    python benchmarks/health.py collapses [--seeds 20] [--first-seed 0] [--items 30000] [--json]
    python benchmarks/health.py healthy [--seeds 20] [--first-seed 0] [--items 30000] [--json]
    python benchmarks/health.py cost [--rounds 60] [--json]

`injections`: NaN and infinities at random places of random steps (tests/injection.py); right is what was caught in the
same step, by its name, before an update. `collapses`: known-bad settings on the digits; whether and when an alarm came.
A run has truly collapsed where, through a tenth of it, 500 samples fall into less than a third of the cells that real
items fall into, of 50 by k-means on pixels, or lie more than twice as far from the training items as those from each
other (medians). That is looked at a hundred times a run. The delay is a share of the run, counted from there.
`healthy`: alarms in runs of the default recipes. Nothing is done about an alarm here, so that each run is what its
setting makes of it. `cost`: the time of a step of r3 on vectors with the checks over that without, in alternation. One
thread each; progress on standard error. The thresholds were chosen on seeds from 100 up.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import make_parser, note, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from ganlib.core import Health, Plan, Spec
from ganlib.data import load
from ganlib.fitting import fit
from ganlib.opening import Request, prepare
from ganlib.pace import Pace
from ganlib.recipe import Recipe, Setting
from ganlib.recipes.dcgan import dcgan
from ganlib.recipes.gan import gan
from ganlib.recipes.r3 import r3
from ganlib.sampling import Sampler
from ganlib.session import Session
from ganlib.stopping import StopWish
from ganlib.tasks.generate import Generate
from ganlib.training import step as step_module
from ganlib.training.guard import check_turn
from ganlib.training.runtime import Runtime
from ganlib.training.state import create
from injection import PLACES, Dying, Mortal, plant  # pyright: ignore[reportMissingImports]

CELLS, PROBES, PROBE_ITEMS = 50, 100, 500


def noted(recipe: Recipe, change: Callable[[Plan], Plan] = lambda plan: plan) -> Recipe:
    """The same without rollbacks."""

    def made(setting: Setting) -> Plan:
        return dataclasses.replace(change(recipe.plan(setting)), health=Health("note", "note"))

    return Recipe(made, {})


def dying(plan: Plan, seed: int, items: int) -> Plan:
    """From a step on between a fifth and four fifths of the run, the generator draws no more than eight points."""
    task, share = plan.task, 0.2 + 0.6 * np.random.default_rng(seed).random()
    assert isinstance(task, Generate)
    mortal, at = (lambda: Mortal(task.make_generator(), 8, task.latent_width)), int(share * items / plan.batch_items)
    spoilt = Dying(mortal, task.make_discriminator, task.latent_width, lambda call: call >= at)
    return dataclasses.replace(plan, task=spoilt)


def bad(seed: int, items: int) -> dict[str, Recipe]:
    """The known-bad settings."""
    return {
        "r3, rate x 50": noted(r3(learning_rate=0.1)),
        "gan, rate x 50": noted(gan(learning_rate=0.01)),
        "r3, dies": noted(r3(), lambda plan: dying(plan, seed, items)),
    }


DEFAULTS = {"gan": noted(gan()), "dcgan": noted(dcgan()), "r3": noted(r3())}


def session_of(recipe: Recipe, seed: int, items: int) -> Session:
    request = Request(
        load=lambda: load("digits"),
        size=None,
        validation=None,
        conditional=None,
        pace=Pace(items),
        runtime=Runtime(),
        asked=recipe,
        seed=seed,
        run=None,
        checkpoint_seconds=1e9,
    )
    made = prepare(request)
    sampler = Sampler(made.plan.task, made.state.average, "cpu", made.label_share)
    return Session(
        made.plan, made.state, made.train, made.held_out, Runtime(), seed, request.pace, sampler, None, StopWish()
    )


class Cells:
    """Which of the cells of a partition of the data samples fall into."""

    def __init__(self, items: Tensor, seed: int) -> None:
        self.centres = items[torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))[:CELLS]].clone()
        for _ in range(20):
            nearest = torch.cdist(items, self.centres).argmin(1)
            for cell in nearest.unique():
                self.centres[cell] = items[nearest == cell].mean(0)
        self.items, self.of_real = items, self.occupied(items[:PROBE_ITEMS])
        self.usual = torch.cdist(items, items).fill_diagonal_(torch.inf).amin(1).median()

    def occupied(self, items: Tensor) -> int:
        return len(torch.cdist(items, self.centres).argmin(1).unique())

    def lost(self, items: Tensor) -> bool:
        """Whether these samples have collapsed, or resemble nothing."""
        if not bool(torch.isfinite(items).all()):
            return True
        away = torch.cdist(items, self.items).amin(1).median()
        return self.occupied(items) < self.of_real / 3 or bool(away > 2 * self.usual)


def true_collapse(lost: list[bool]) -> float | None:
    """Where the first tenth of a run begins through which all was lost; None without."""
    run = PROBES // 10
    return next((n / PROBES for n in range(len(lost) - run + 1) if all(lost[n : n + run])), None)


def watched(recipe: Recipe, seed: int, items: int, probing: bool) -> dict[str, Any]:
    """Train once; when it truly collapsed, if looked at, and when alarms came, as shares of the run."""
    session = session_of(recipe, seed, items)
    data = session.data.batch(np.arange(len(session.data)))["real"].flatten(1)
    cells = Cells(data, seed) if probing else None
    lost: list[bool] = []
    for progress in fit(session):
        if cells is not None and progress.items_seen * PROBES // items > len(lost):
            drawn = torch.cat([part for part, _ in session.sampler.stream(PROBE_ITEMS, seed=seed + 7)]).flatten(1)
            lost.append(cells.lost(drawn))
    alarms = [
        event for event in session.events if event["event"] == "finding" and event["kind"] in ("collapse", "divergence")
    ]
    return {
        "seed": seed,
        "collapsed_at": true_collapse(lost) if probing else None,
        "alarm_at": alarms[0]["items"] / items if alarms else None,
        "sign": alarms[0]["sign"] if alarms else None,
        "skipped": sum(event["event"] == "skipped" for event in session.events),
    }


def runs(
    recipes: Callable[[int, int], dict[str, Recipe]], args: argparse.Namespace, probing: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, recipe in recipes(seed, args.items).items():
            begun = time.monotonic()
            outcome = watched(recipe, seed, args.items, probing)
            note(f"{name}: {outcome}, {time.monotonic() - begun:.0f} s")
            yield name, outcome


def collapses(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in bad(0, args.items)}
    for name, outcome in runs(bad, args, probing=True):
        found[name].append(outcome)
    told: dict[str, Any] = {}
    every: list[float | None] = []
    for name, outcomes in found.items():
        true = [outcome for outcome in outcomes if outcome["collapsed_at"] is not None]
        delays = [None if o["alarm_at"] is None else o["alarm_at"] - o["collapsed_at"] for o in true]
        every += delays
        told[name] = {"runs": len(outcomes), "truly_collapsed": len(true), **summary(delays)}
    return {"all": {"truly_collapsed": len(every), **summary(every)}, **told, "items": args.items, "seeds": args.seeds}


def summary(delays: list[float | None]) -> dict[str, Any]:
    """How many were alarmed, how many within a tenth of the run, and the delays of those that were."""
    known = sorted(delay for delay in delays if delay is not None)
    share = lambda count: round(count / len(delays), 3) if delays else None  # noqa: E731
    return {
        "alarmed": share(len(known)),
        "within_a_tenth": share(sum(abs(delay) <= 0.1 + 1e-9 for delay in known)),
        "earlier": share(sum(delay < -0.1 - 1e-9 for delay in known)),
        "median_delay": round(statistics.median(known), 3) if known else None,
        "largest_delay": round(known[-1], 3) if known else None,
    }


def healthy(args: argparse.Namespace) -> dict[str, Any]:
    alarms: dict[str, list[dict[str, Any]]] = {name: [] for name in DEFAULTS}
    for name, outcome in runs(lambda *_: DEFAULTS, args, probing=False):
        if outcome["alarm_at"] is not None:
            alarms[name].append(outcome)
    count = args.seeds * len(DEFAULTS)
    total = sum(map(len, alarms.values()))
    return {"runs": count, "false_alarms": total, "share": round(total / count, 3), **alarms, "items": args.items}


def injections(args: argparse.Namespace) -> dict[str, Any]:
    planted = [plant(number, PLACES[number % len(PLACES)]) for number in range(args.count)]
    wrong = [str(one) for one in planted if not one.right]
    return {"planted": len(planted), "right": len(planted) - len(wrong), "places": len(PLACES), "wrong": wrong}


def cost(args: argparse.Namespace) -> dict[str, Any]:
    """Steps of the smallest networks, in groups of four, since a penalty is due in every fourth."""
    plan = r3().plan(Setting(Spec("vector", (2,), offset=(0.0,), scale=(1.0,)), 20_000, "cpu"))
    runtime = Runtime()
    state = create(plan, runtime, 0, 10**9)
    batch = {"real": torch.randn(plan.batch_items, 2)}
    ratios, plain = [], []
    for number in range(args.rounds + 1):
        seconds: dict[bool, float] = {}
        for checked in (True, False) if number % 2 else (False, True):
            step_module.check_turn = check_turn if checked else lambda *_: None
            begun = time.process_time()
            for _ in range(12):
                step_module.step(state, plan, batch, runtime, 0)
            seconds[checked] = (time.process_time() - begun) / 12
        if number:
            ratios.append(seconds[True] / seconds[False])
            plain.append(seconds[False])
    step_module.check_turn = check_turn
    quartiles = statistics.quantiles(ratios, n=4)
    return {
        "ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(value, 4) for value in quartiles[::2]],
        "step_milliseconds": round(1e3 * statistics.median(plain), 2),
        "rounds": args.rounds,
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("what", choices=("injections", "collapses", "healthy", "cost"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = {"injections": injections, "collapses": collapses, "healthy": healthy, "cost": cost}[args.what]
    report(work(args), args.json)


if __name__ == "__main__":
    main()
