"""Where the time of a training step goes: a table of its parts in milliseconds and shares, for three cases.

    python benchmarks/step_profile.py [--cases r3_28 r3_32 dcgan_64] [--blocks 4] [--threads 1] [--json]

Protocol: random items in memory, the steps of ``ganlib.training.loop.train`` in blocks of eight, so that each block
holds one round of the default recipe's penalties. Blocks with the clocks on and off take turns on one training: the
table is of the first, `step_milliseconds` and its spread of the second, and `clock_cost` is what the clocks add. A
clock is a wrapper put around a function or network from outside; where one runs inside another, the time counts for
the inner one, so the parts sum to the step, and `rest` is what no clock covers (the loss itself, cutting batches,
autocast, freezing).

A step with penalties is float32 throughout, so the discriminator's turn of such steps has rows of its own: `penalty`
is the first derivative, `backward with penalties` differentiates it again. `logging` writes the mean terms to the
run folder at the end of every block of eight; ``fit`` does so every 50 steps. `bookkeeping` is averaging, optimisers
and logging. Looks and checkpoints are no part of a step. On CUDA each clock waits for the device, so the sum is more
than a step without.
"""

import contextlib
import functools
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from cases import CASES, Case, Training, begin, random_data, waited
from common import make_parser, note, report
from ganlib.core import Batch, Draws, Judge, Pair, Penalty, Plan, Verdict
from ganlib.training import loop, step
from ganlib.training.run import Run
from ganlib.training.runtime import Runtime, choose_device, choose_precision
from ganlib.training.state import Mean

BLOCK_STEPS = 8
ROWS = {
    "data": "choosing items, bytes to float, moving to the device",
    "draws": "latents, and the state of random generators",
    "generator forward": "",
    "discriminator forward": "in its own turn, without penalties",
    "discriminator forward with penalties": "in its own turn, float32",
    "penalty": "value and first derivative",
    "discriminator backward": "of its own turn, without penalties",
    "discriminator backward with penalties": "twice through the network",
    "verdicts for the generator": "forward through the discriminator in the generator's turn",
    "generator backward": "through both networks",
    "optimisers": "with rates and clearing of gradients",
    "moving average": "",
    "guards": "looking for values that are not finite",
    "logging": "mean terms, and a written line every 8 steps",
    "rest": "",
}
BOOKKEEPING = ("optimisers", "moving average", "logging")


class Clock:
    """Seconds by part; while a part runs inside another, only the inner one counts."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait, self.on = wait, False
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.last = 0.0

    def turn(self) -> None:
        """Credit the time since the last turn to the innermost open part."""
        self.wait()
        now = time.perf_counter()
        if self.open:
            self.seconds[self.open[-1]] += now - self.last
        self.last = now

    def enter(self, name: str) -> None:
        if self.on:
            self.turn()
            self.open.append(name)

    def leave(self) -> None:
        if self.on:
            self.turn()
            self.open.pop()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def around(self, function: Callable[..., Any], name: str | Callable[[], str]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name if isinstance(name, str) else name()):
                return function(*args, **kwargs)

        return timed


class Clocked(Penalty):
    """A penalty under a clock."""

    def __init__(self, penalty: Penalty, clock: Clock) -> None:
        self.penalty, self.clock = penalty, clock

    @property
    def double_backward(self) -> bool:
        return self.penalty.double_backward

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Tensor:
        with self.clock.part("penalty"):
            return self.penalty(judge, pair, real, fake, draws)


class Turn:
    """Which turn of the step is on, for what both turns call."""

    def __init__(self) -> None:
        self.name = ""

    def around(self, function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            self.name = name(*args)
            return function(*args, **kwargs)

        return inside

    @property
    def forward(self) -> str:
        return "verdicts for the generator" if self.name == "generator" else f"discriminator forward{self.name}"

    @property
    def backward(self) -> str:
        return "generator backward" if self.name == "generator" else f"discriminator backward{self.name}"


@contextlib.contextmanager
def clocks(training: Training, clock: Clock) -> Iterator[Plan]:
    """The plan of a training whose step is covered with clocks."""
    turn, state, plan = Turn(), training.state, training.plan
    assert state.discriminator is not None and state.discriminator_optimiser is not None
    randomness, around = Runtime.randomness, clock.around

    @contextlib.contextmanager
    def drawing(runtime: Runtime, seed: int, items_seen: int) -> Iterator[Draws]:
        with contextlib.ExitStack() as stack:
            with clock.part("draws"):
                draws = stack.enter_context(randomness(runtime, seed, items_seen))
            yield draws
            clock.enter("draws")
        clock.leave()

    def own_turn(state: object, plan: object, batch: object, due: dict, *others: object) -> str:
        return " with penalties" if due else ""

    hooks = [*hooked(state.generator, clock, lambda: "generator forward")]
    hooks += hooked(state.discriminator, clock, lambda: turn.forward)
    with contextlib.ExitStack() as stack:
        patch = lambda *what: stack.enter_context(mock.patch.object(*what))  # noqa: E731
        patch(Runtime, "randomness", drawing)
        patch(Runtime, "move", around(Runtime.move, "data"))
        patch(Tensor, "backward", around(Tensor.backward, lambda: turn.backward))
        patch(Mean, "add", around(Mean.add, "logging"))
        patch(step, "discriminator_turn", turn.around(step.discriminator_turn, own_turn))
        patch(step, "generator_turn", turn.around(step.generator_turn, lambda *_: "generator"))
        patch(step, "check_turn", around(step.check_turn, "guards"))
        patch(loop, "check_inputs", around(loop.check_inputs, "guards"))
        patch(step, "set_rates", around(step.set_rates, "optimisers"))
        patch(step, "update_average", around(step.update_average, "moving average"))
        patch(type(plan.task), "draw", around(type(plan.task).draw, "draws"))
        for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
            patch(optimiser, "step", around(optimiser.step, "optimisers"))
            patch(optimiser, "zero_grad", around(optimiser.zero_grad, "optimisers"))
        penalties = {
            name: replace(item, penalty=Clocked(item.penalty, clock))
            for name, item in plan.objective.penalties.items()
            if isinstance(item.penalty, Penalty)
        }
        yield replace(plan, objective=replace(plan.objective, penalties=penalties))
    for hook in hooks:
        hook.remove()


def hooked(network: nn.Module, clock: Clock, name: Callable[[], str]) -> Iterator[Any]:
    """A clock around each call of a network."""
    yield network.register_forward_pre_hook(lambda *_: clock.enter(name()))
    yield network.register_forward_hook(lambda *_: clock.leave())


def clocked_batches(batches: Iterator[Batch], clock: Clock) -> Iterator[Batch]:
    while True:
        with clock.part("data"):
            batch = next(batches)
        yield batch


def measure(case: Case, num_blocks: int, runtime: Runtime, folder: Path) -> dict[str, Any]:
    """The parts of a step in milliseconds, and the step without clocks; the first two blocks warm up."""
    wait = waited(runtime.device)
    clock, training = Clock(wait), begin(case, random_data(case, 100 * case.batch_items), runtime)
    plain: list[float] = []
    with Run.open(folder) as run, clocks(training, clock) as plan:
        batches = clocked_batches(training.batches, clock)
        reports = loop.train(training.state, plan, batches, runtime, 0)
        for block in range(2 * num_blocks + 2):
            if block == 2:
                clock.seconds.clear()
            clock.on = block % 2 == 1
            wait()
            start = time.perf_counter()
            with clock.part("rest"):
                for _ in range(BLOCK_STEPS):
                    next(reports)
                with clock.part("logging"):
                    items = training.state.items_seen
                    run.log({"items": items, **training.state.mean.take()})
                    run.log_time({"items": items, "seconds": time.monotonic()})
            wait()
            if block >= 2 and not clock.on:
                plain.append(1000 * (time.perf_counter() - start) / BLOCK_STEPS)
    parts = {name: 1000 * clock.seconds[name] / (num_blocks * BLOCK_STEPS) for name in ROWS}
    assert not clock.seconds.keys() - ROWS.keys(), sorted(clock.seconds.keys() - ROWS.keys())
    return summary(parts, plain, case.batch_items)


def summary(parts: dict[str, float], plain: list[float], batch_items: int) -> dict[str, Any]:
    total = sum(parts.values())
    step_milliseconds = statistics.median(plain)
    return {
        "step_milliseconds": round(step_milliseconds, 3),
        "step_least": round(min(plain), 3),
        "step_largest": round(max(plain), 3),
        "images_per_second": round(1000 * batch_items / step_milliseconds, 1),
        "clock_cost": round(total / statistics.fmean(plain) - 1, 4),
        "data_share": round(parts["data"] / total, 5),
        "bookkeeping_share": round(sum(parts[name] for name in BOOKKEEPING) / total, 5),
        "rest_share": round(parts["rest"] / total, 5),
        "milliseconds": {name: round(value, 4) for name, value in parts.items()},
        "shares": {name: round(value / total, 5) for name, value in parts.items()},
    }


def table(cases: dict[str, dict[str, Any]]) -> str:
    """A line per part, a column per case: milliseconds and percent."""
    lines = [f"{'':38}" + "".join(f"{name:>20}" for name in cases)]
    for row in ROWS:
        cells = (f"{case['milliseconds'][row]:11.3f} {100 * case['shares'][row]:6.2f} %" for case in cases.values())
        lines.append(f"{row:38}" + "".join(f"{cell:>20}" for cell in cells) + f"   {ROWS[row]}")
    sums = (f"{sum(case['milliseconds'].values()):11.3f}         " for case in cases.values())
    lines.append(f"{'sum':38}" + "".join(f"{cell:>20}" for cell in sums))
    for row in ("step_milliseconds", "clock_cost", "bookkeeping_share", "data_share"):
        lines.append(f"{row:38}" + "".join(f"{case[row]:11.4f}         " for case in cases.values()))
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--blocks", type=int, default=4, help="of eight steps each, with clocks; as many without")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    runtime = Runtime(device, choose_precision(args.precision, device))
    cases: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.cases:
            cases[name] = measure(CASES[name], args.blocks, runtime, Path(folder) / name)
            note(f"{name}: {cases[name]['step_milliseconds']} ms")
    machine = {"device": device, "precision": runtime.precision, "threads": args.threads, "torch": torch.__version__}
    shares = {
        f"largest_{what}_share": max(case[f"{what}_share"] for case in cases.values())
        for what in ("data", "bookkeeping")
    }
    if args.json:
        print(json.dumps({**shares, **cases, **machine, "blocks": args.blocks}))
    else:
        print(table(cases))
        report({**shares, **machine}, as_json=False)


if __name__ == "__main__":
    main()
