"""What each trick of the training step is worth: the step as it is against the step without it, in alternation.

    python benchmarks/ablation.py [--cases r3_28 r3_32] [--rounds 9] [--steps 8] [--compiled] [--json]

Protocol: for each trick two trainings from the same weights on the same items, in one process on `--threads` threads,
take `--steps` steps in turn, `--rounds` times after one round of warm-up; `ratio` is the CPU time of the step without
the trick over that of the step as it is, the median of the rounds (least, largest): over 1, the trick pays. `--steps`
should be a multiple of the interval of the penalties, so that each round holds as many of them.

`difference` is how far the losses of three steps in float32 are apart, relative to their size: rounding where the trick
is the same mathematics, and None where it is not meant to be (finite differences, penalties in every step, bfloat16).
`--compiled` adds torch.compile, which takes minutes to begin with.
"""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from cases import CASES, Case, random_data
from common import make_parser, note, report
from ganlib.core import Batch, Plan
from ganlib.penalties import without_double_backward
from ganlib.recipe import Setting
from ganlib.training import step as stepping
from ganlib.training.runtime import Runtime, choose_precision
from ganlib.training.state import State, create

Context = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Variant:
    """A step without one of its tricks: a changed plan, runtime or state, or code put in the place of its own."""

    plan: Callable[[Plan], Plan] = lambda plan: plan
    runtime: Callable[[Runtime], Runtime] = lambda runtime: runtime
    state: Callable[[State], None] = lambda state: None
    within: Context = contextlib.nullcontext
    same: bool = True  # the same mathematics: the losses differ by rounding


def penalties_always(plan: Plan) -> Plan:
    always = {name: replace(item, every_steps=1) for name, item in plan.objective.penalties.items()}
    return replace(plan, objective=replace(plan.objective, penalties=always))


def plain_optimisers(state: State) -> None:
    """One weight after the other, as the reference implementation does it."""
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        for group in optimiser.param_groups if optimiser is not None else []:
            group["fused"], group["foreach"] = False, False


def row_major(state: State) -> None:
    for network in (state.generator, state.discriminator, state.average):
        if network is not None:
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextlib.contextmanager
def unfrozen() -> Iterator[None]:
    """The generator's turn computes the gradients of the discriminator's weights too, and throws them away."""

    @contextlib.contextmanager
    def leave(network: nn.Module | None) -> Iterator[None]:
        yield
        if network is not None:
            network.zero_grad()

    with mock.patch.object(stepping, "frozen", leave):
        yield


@contextlib.contextmanager
def average_one_by_one() -> Iterator[None]:
    def lerp(averages: list[Tensor], values: list[Tensor], share: float) -> None:
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, share)

    with mock.patch.object(torch, "_foreach_lerp_", lerp):
        yield


VARIANTS = {
    "fakes reused by the generator's turn": Variant(plan=lambda plan: replace(plan, reuse_fakes=False), same=False),
    "real and fake judged in one pass": Variant(plan=lambda plan: replace(plan, joint_verdicts=False)),
    "penalties in every 8th step only": Variant(plan=penalties_always, same=False),
    "exact penalties (without: finite difference)": Variant(
        plan=lambda plan: replace(plan, objective=without_double_backward(plan.objective)), same=False
    ),
    "discriminator frozen in the generator's turn": Variant(within=unfrozen),
    "fused optimisers": Variant(state=plain_optimisers),
    "moving average in one call": Variant(within=average_one_by_one),
    "channels last": Variant(state=row_major),
    "bfloat16": Variant(runtime=lambda runtime: replace(runtime, precision="float32"), same=False),
}
COMPILED = {"without compilation": Variant(runtime=lambda runtime: replace(runtime, compiled=True))}


@dataclass(frozen=True)
class Training:
    """A training that takes steps when asked."""

    state: State
    plan: Plan
    runtime: Runtime
    batches: Iterator[Batch]
    variant: Variant

    def steps(self, count: int) -> list[dict[str, Tensor]]:
        with self.variant.within():
            return [
                stepping.step(self.state, self.plan, self.runtime.move(next(self.batches)), self.runtime, 0)
                for _ in range(count)
            ]


def begin(case: Case, variant: Variant, runtime: Runtime) -> Training:
    data = random_data(case, 20 * case.batch_items)
    setting = Setting(data.spec, len(data), "cpu", conditional=case.num_classes > 0)
    plan, runtime = variant.plan(case.recipe.plan(setting)), variant.runtime(runtime)
    state = create(plan, runtime, 0, plan.items)
    variant.state(state)
    return Training(state, plan, runtime, data.batches(case.batch_items, 0, 0), variant)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(case: Case, variant: Variant, rounds: int, steps: int) -> dict[str, Any]:
    """The ratio of both times, and how far the losses are apart."""
    runtime = Runtime(precision=choose_precision("auto", "cpu"))
    both = [begin(case, kind, runtime) for kind in (Variant(), variant)]
    ratios = []
    for number in range(rounds + 1):
        with_it, without = (cpu_seconds(functools.partial(training.steps, steps)) for training in both)
        if number:
            ratios.append(without / with_it)
    return {
        "ratio": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "largest": round(max(ratios), 3),
        "difference": largest_difference(case, variant) if variant.same else None,
    }


def largest_difference(case: Case, variant: Variant) -> float:
    """Of a loss in three float32 steps from the same weights, relative to its size."""
    first, second = (begin(case, kind, Runtime()).steps(3) for kind in (Variant(), variant))
    apart = [
        float((a[name] - b[name]).abs() / a[name].abs().clamp(min=1e-6))
        for a, b in zip(first, second, strict=True)
        for name in a
    ]
    return max(apart)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=sorted(CASES), default=["r3_28"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {}
    for name in args.cases:
        for trick, variant in {**VARIANTS, **(COMPILED if args.compiled else {})}.items():
            result[f"{name}: {trick}"] = found = compare(CASES[name], variant, args.rounds, args.steps)
            note(f"{name:10} {trick:46} {found}")
    result |= {"threads": args.threads, "precision": choose_precision("auto", "cpu"), "torch": torch.__version__}
    report(result, args.json)


if __name__ == "__main__":
    main()
