"""One of two processes: trains steps on its rows, and compares them with those of one process on the joined batch.

Arguments: rank, number of processes, a folder. The first process writes ``results.json`` there: by case, how far
the gradients of all processes together are from those of one, and what else the tests ask for.
"""

import copy
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ganlib.augment import AdaptivePipeline
from ganlib.core import (
    Augmentation,
    Batch,
    FakeBuffer,
    Objective,
    OptimiserSettings,
    Plan,
    Verdict,
    WeightedPenalty,
    constant,
)
from ganlib.data import load
from ganlib.errors import DataError, DivergedError
from ganlib.gan import GAN
from ganlib.losses import Hinge, NonSaturating, RelativisticPairing
from ganlib.networks.cascade import CascadeDiscriminator, CascadeGenerator
from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganlib.networks.minibatch import BesideFeatures, MinibatchDeviation
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.networks.packing import Packed
from ganlib.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from ganlib.networks.spectral import spectral_normalise
from ganlib.networks.vectors import MixtureGenerator, NoisyDiscriminator
from ganlib.penalties import R1, R2, Dragan, GradientPenalty
from ganlib.penalties.memory import HistoricalAverage, LeCam, PathLength
from ganlib.recipe import Recipe, Setting
from ganlib.recipes.attributes import attributes
from ganlib.recipes.cut import cut
from ganlib.recipes.cyclegan import cyclegan
from ganlib.recipes.pix2pix import pix2pix
from ganlib.recipes.r3 import r3
from ganlib.spec import Attribute, Spec
from ganlib.tasks.generate import Generate
from ganlib.tasks.noisy import GenerateNoisy
from ganlib.tasks.stages import GenerateInStages
from ganlib.tasks.translate import Translate
from ganlib.training.guard import NonFinite
from ganlib.training.joined import JoinedBatchNorm
from ganlib.training.loop import train
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, to_tensors
from ganlib.training.step import step
from ganlib.training.team import Team, join

BATCH, SEED = 16, 3
REMEMBERED = ("memories", "augment", "buffer")
PLAIN_SGD = OptimiserSettings(constant(1.0), kind="sgd")  # the change of a weight is its gradient
EXACT = {"r1": WeightedPenalty(R1(), constant(0.7)), "r2": WeightedPenalty(R2(), constant(0.3))}
FINITE = {"r1": WeightedPenalty(R1(0.1), constant(0.7)), "r2": WeightedPenalty(R2(0.1), constant(0.3))}
SLOPE = {"gp": WeightedPenalty(GradientPenalty(), constant(10.0))}


def compact(num_classes: int = 0) -> Generate:
    shape = (1, 8, 8)
    return Generate(
        lambda: CompactGenerator(shape, latent=4, width=4, num_classes=num_classes),
        lambda: CompactDiscriminator(shape, width=4, num_classes=num_classes),
        4,
    )


def dcgan() -> Generate:
    shape = (1, 8, 8)
    return Generate(lambda: DCGANGenerator(shape, latent=4, width=4), lambda: DCGANDiscriminator(shape, width=4), 4)


def spectral() -> Generate:
    return Generate(
        lambda: MLPGenerator((1, 8, 8), latent=4, widths=(8,), batch_norm=True),
        lambda: spectral_normalise(MLPDiscriminator((1, 8, 8), widths=(8,))),
        4,
    )


def noisy() -> GenerateNoisy:
    return GenerateNoisy(
        lambda: MixtureGenerator((2,), latent=12, widths=(8,)), lambda: NoisyDiscriminator((2,), widths=(8,)), 12
    )


class LinearGenerator(nn.Module):
    """Pictures that are linear in a latent of four numbers, and in a shift of it as PathLength wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 64)

    def forward(self, latent: Tensor, labels: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.linear(latent if shift is None else latent + shift).tanh().view(-1, 1, 8, 8)


class SmoothDiscriminator(nn.Module):
    """A judge whose slope is another at each point, however near."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 8), nn.Linear(8, 1)

    def forward(self, items: Tensor, labels: Tensor | None = None) -> Verdict:
        return Verdict((self.outer(self.inner(items.flatten(1)).tanh()).squeeze(1),))


def perceptrons(change: Callable[[nn.Module], nn.Module] = lambda judge: judge, channels: int = 1) -> Generate:
    return Generate(LinearGenerator, lambda: change(MLPDiscriminator((channels, 8, 8), widths=(8,))), 4)


def growing() -> Generate:
    """Small at the first two steps of 16 items, between sizes at the third, grown at the fourth."""
    return Generate(
        lambda: ProgressiveGenerator((1, 8, 8), latent=4, width=2, growing_share=0.04),
        lambda: ProgressiveDiscriminator((1, 8, 8), width=2, growing_share=0.04),
        4,
    )


def cascade() -> GenerateInStages:
    """The second of two stages begins at the third step."""
    shape = (1, 8, 8)
    return GenerateInStages(
        lambda: CascadeGenerator(shape, latent=4, width=4, stages=2, begin=0.02),
        lambda: CascadeDiscriminator(shape, width=4, stages=2, begin=0.02),
        8,
        stages=2,
    )


def history(task: Generate) -> dict[str, dict[str, WeightedPenalty]]:
    """The memory of both networks, by the fields of an objective."""
    networks = dict(zip(("generator_penalties", "penalties"), task.networks(), strict=True))
    return {
        name: {"history": WeightedPenalty(HistoricalAverage(network), constant(0.1))}
        for name, network in networks.items()
        if network is not None
    }


def make_plan(task: Generate, penalties: dict[str, WeightedPenalty], **changes: Any) -> Plan:
    plan = Plan(
        task=task,
        objective=Objective(RelativisticPairing(), penalties),
        generator=PLAIN_SGD,
        discriminator=PLAIN_SGD,
        batch_items=BATCH,
        ema_halflife_items=constant(100.0),
        items=1000,
        joint_verdicts=True,
    )
    return replace(plan, **changes)


def of_recipe(asked: Recipe, classes: str = "") -> Plan:
    """A recipe that makes pictures of pictures, under the plain optimiser; a class for each letter."""
    spec = Spec("image", (1, 8, 8), tuple(classes))
    if asked.material == "pairs":
        spec = replace(spec, condition=Spec("image", (1, 8, 8)))
    elif asked.material == "attributes":
        spec = replace(spec, attributes=(Attribute("age", 0, 1),))
    plan = asked.plan(Setting(spec, 100, "cpu", conditional=bool(classes)))
    return replace(plan, generator=PLAIN_SGD, discriminator=PLAIN_SGD, batch_items=BATCH)


CASES: dict[str, Callable[[], Plan]] = {
    "batch norm, exact": lambda: make_plan(compact(), EXACT),
    "batch norm, finite difference": lambda: make_plan(compact(), FINITE),
    "batch norm, no penalty": lambda: make_plan(compact(), {}),
    "classes": lambda: make_plan(compact(num_classes=3), EXACT),
    "accumulated, exact": lambda: make_plan(compact(), EXACT, accumulate=4),
    "accumulated, finite difference": lambda: make_plan(compact(), FINITE, accumulate=2),
    "several discriminator steps": lambda: make_plan(compact(), EXACT, discriminator_steps=3, accumulate=2),
    "batch norm in both": lambda: make_plan(dcgan(), {}, joint_verdicts=False),
    "batch norm in both, exact": lambda: make_plan(dcgan(), EXACT, joint_verdicts=False),
    "spectral norm, hinge": lambda: make_plan(spectral(), {}, objective=Objective(Hinge())),
    "gradient penalty": lambda: make_plan(spectral(), SLOPE),
    "noisy vectors": lambda: make_plan(noisy(), EXACT),
    "nothing reused": lambda: make_plan(compact(), EXACT, reuse_fakes=False),
    "pairs": lambda: of_recipe(pix2pix(width=4, alone=0.0, batch_items=BATCH)),
    "spoiled pictures": lambda: of_recipe(pix2pix(degrade="noise", width=4, alone=0.0, batch_items=BATCH)),
    "pretraining": lambda: of_recipe(pix2pix(width=4, batch_items=BATCH)),
    "two sets": lambda: of_recipe(cyclegan(width=4, blocks=1, batch_items=BATCH), "ab"),
    "two sets, one way": lambda: of_recipe(cut(width=4, blocks=1, units=8, batch_items=BATCH), "ab"),
    "attributes": lambda: of_recipe(attributes(width=4, blocks=1, batch_items=BATCH)),
    "attributes and classes": lambda: of_recipe(attributes(width=4, blocks=1, batch_items=BATCH), "abc"),
}

SLOW_SGD = OptimiserSettings(constant(0.003), kind="sgd")
LECAM = {"lecam": WeightedPenalty(LeCam(30.0), constant(0.3))}
DRAGAN = {"dragan": WeightedPenalty(Dragan(), constant(10.0))}
PATHS = {"paths": WeightedPenalty(PathLength(0.5), constant(2.0))}
ADAPTIVE = Augmentation(AdaptivePipeline(), constant(0.4), target=0.6, rise_items=400)
PSEUDO = Augmentation(None, constant(0.4), target=-0.6, rise_items=400, pseudo=True)


def changing(task: Generate, objective: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """A plan for several steps, small enough that rounding does not grow."""
    settings: dict[str, Any] = {"generator": SLOW_SGD, "discriminator": SLOW_SGD, "joint_verdicts": False}
    return make_plan(task, {}, objective=Objective(NonSaturating(), **objective or {}), **settings | changes)


CHANGING: dict[str, Callable[[], Plan]] = {
    "lecam": lambda: changing(perceptrons(), {"penalties": LECAM}),
    "lecam, accumulated": lambda: changing(perceptrons(), {"penalties": LECAM}, accumulate=2),
    "dragan": lambda: changing(Generate(LinearGenerator, SmoothDiscriminator, 4), {"penalties": DRAGAN}),
    "path length": lambda: changing(perceptrons(), {"generator_penalties": PATHS}),
    "history": lambda: changing(task := perceptrons(), history(task)),
    "adaptive": lambda: changing(perceptrons(), {"penalties": EXACT}, augmentation=ADAPTIVE),
    "adaptive, accumulated": lambda: changing(perceptrons(), augmentation=ADAPTIVE, accumulate=2),
    "buffer": lambda: changing(perceptrons(), fake_buffer=FakeBuffer(24)),
    "pseudo": lambda: changing(perceptrons(), augmentation=PSEUDO),
    "growing": lambda: changing(growing(), {"penalties": SLOPE}),
    "growing, history": lambda: changing(task := growing(), history(task)),
    "growing, accumulated": lambda: changing(growing(), {"penalties": EXACT}, accumulate=2),
    "cascade": lambda: changing(cascade(), {"penalties": EXACT}, joint_verdicts=True),
    "cascade, history": lambda: changing(task := cascade(), history(task)),
    "packing": lambda: changing(perceptrons(lambda judge: Packed(judge, 2), channels=2), {"penalties": SLOPE}),
    "deviation": lambda: changing(perceptrons(lambda judge: BesideFeatures(judge, MinibatchDeviation()))),
}
"""Plans that remember something of the steps before, or change over a run, or look across the items of a batch.

Their items have no classes, so that packs, and the fakes that stand in for real items, are of the whole batch.
"""


def whole_batch(plan: Plan, position: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(position + 100)
    count = plan.batch_items * plan.discriminator_steps
    shape = (2,) if isinstance(plan.task, GenerateNoisy) else (1, 8, 8)
    batch = {
        "real": torch.randn(count, *shape, generator=rng),
        "label": torch.arange(count) % 2 if plan.balanced else torch.randint(3, (count,), generator=rng),
        "condition": torch.randn(count, *shape, generator=rng),
        "attributes": torch.rand(count, 1, generator=rng),
    }
    if not isinstance(plan.task, Translate):
        batch.pop("condition")
    return batch if plan.generator is PLAIN_SGD else {"real": batch["real"]}


def rows(batch: Batch, team: Team, together: int = 1) -> Batch:
    """Every `size`-th item from the rank on, or every `size`-th of so many that stay together."""
    groups = {name: tensor.unflatten(0, (-1, together)) for name, tensor in batch.items()}
    return {name: tensor[team.rank :: team.size].flatten(0, 1) for name, tensor in groups.items()}


def weights(state: State) -> dict[str, Tensor]:
    return {
        f"{group}.{name}": value.detach().clone()
        for group, members in to_tensors(state).items()
        if group in ("generator", "discriminator", "average")
        for name, value in members.items()
        if value.is_floating_point()
    }


def remembered(state: State) -> dict[str, list[float]]:
    """What penalties and the augmentation know of the steps before, and how far the networks have grown."""
    files = to_tensors(state)
    known = {f"{group}.{name}": value for group in REMEMBERED for name, value in files.get(group, {}).items()}
    grown = {
        f"{group}.{name}": value
        for group in ("generator", "discriminator", "average")
        for name, value in files[group].items()
        if not value.is_floating_point()
    }
    return {name: value.double().flatten().tolist() for name, value in (known | grown).items()}


def difference(plan: Plan, team: Team, precision: Any = "float32", num_steps: int = 1) -> float:
    """‖a - b‖ / ‖a‖ of a network's changes of weights and buffers in one and in all processes; the worst network's."""
    return after_steps(plan, team, precision, num_steps)[0]


def after_steps(
    plan: Plan, team: Team, precision: Any = "float32", num_steps: int = 1
) -> tuple[float, list[dict[str, list[float]]]]:
    """That difference, and what one process and all processes then remember."""
    ends, terms, memories = [], [], []
    for each in (Team(), team):
        runtime = Runtime(team=each, precision=precision)
        state = create(plan, runtime, SEED, 1000)
        before = weights(state)
        for number in range(num_steps):
            batch = runtime.move(rows(whole_batch(plan, number), each, 2 if plan.balanced else 1))
            terms.append(step(state, plan, batch, runtime, SEED))
        ends.append({name: value - before[name] for name, value in weights(state).items()})
        memories.append(remembered(state))
    for name, term in terms[num_steps - 1].items():
        torch.testing.assert_close(term, terms[-1][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    shares = []
    for network in ("generator.", "discriminator.", "average."):
        alone, shared = ({n: v for n, v in end.items() if n.startswith(network)} for end in ends)
        a, b = (torch.cat([part[name].flatten() for name in alone]) for part in (alone, shared))
        shares.append(float((a - b).norm() / a.norm()))
    return max(shares), memories


def lost_step(place: str, team: Team) -> list[str]:
    """What each process raises where one item, or one weight's gradient, of the last process is not finite."""
    plan, runtime = make_plan(compact(), EXACT), Runtime(team=team)
    state = create(plan, runtime, SEED, 1000)
    batch = rows(whole_batch(plan), team)
    if team.rank == team.size - 1:
        if place == "item":
            batch["real"][0, 0, 0, 0] = torch.nan
        else:
            assert state.discriminator is not None
            next(state.discriminator.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    before = weights(state)
    try:
        list(train(state, plan, [batch], runtime, SEED))
        raised = "nothing"
    except NonFinite as error:
        raised = f"{error.trouble.kind} {error.trouble.name}"
    kept = {name: value for name, value in weights(state).items() if "running" not in name}
    same = all(torch.equal(value, before[name]) for name, value in kept.items())
    return team.all(f"{raised}, {'unchanged' if same else 'changed'}")


def lost_memory(team: Team) -> list[bool]:
    """Whether what LeCam remembers stays as it was where an item of the last process is not finite."""
    plan, runtime = changing(perceptrons(), {"penalties": LECAM}), Runtime(team=team)
    state = create(plan, runtime, SEED, 1000)
    batches = [rows(whole_batch(plan, number), team) for number in range(2)]
    step(state, plan, batches[0], runtime, SEED)
    before = remembered(state)
    if team.rank == team.size - 1:
        batches[1]["real"][0, 0, 0, 0] = torch.nan
    try:
        step(state, plan, batches[1], runtime, SEED)
    except NonFinite:
        return team.all(remembered(state) == before)
    raise AssertionError("a step with such an item is to be refused")


def seen_items(team: Team) -> list[int]:
    """The items of five steps of data whose numbers say which they are, of all processes together, by step."""
    numbers = np.arange(50, dtype=np.float32).reshape(50, 1)
    data = load(numbers.repeat(2, 1))
    batches = data.batches(12, 7, 24, (team.rank, team.size))
    found = [
        (next(batches)["real"][:, 0] * data.spec.scale[0] + data.spec.offset[0]).round().int().tolist()
        for _ in range(5)
    ]
    return [item for step in zip(*team.all(found), strict=True) for row in zip(*step, strict=True) for item in row]


def told(team: Team) -> dict[str, Any]:
    """What processes tell each other, as each of them has it afterwards."""
    own = torch.arange(3.0) + 10 * team.rank
    words = {"a": [1, None, "ä"], "nan": float("nan")} if team.rank == 0 else None
    tensors = (
        {"group": {"x": own, "count": torch.tensor(7), "flag": torch.tensor([True]), "none": torch.empty(0, 2)}}
        if team.rank == 0
        else {}
    )
    rows = torch.arange(11.0).view(11, 1)
    chunks = [chunk for number, chunk in enumerate(rows.split(2)) if number % team.size == team.rank]
    return {
        "largest": team.largest(team.rank, -team.rank),
        "mean": [float(value) for value in team.mean([own[0], own[1]])],
        "first": str(team.first(words)),
        "all": team.all(team.rank * "long"),
        "tensors": str(team.tensors_of_first(tensors)),
        "dealt": team.dealt(torch.cat(chunks), 11, 2).flatten().tolist(),
        "few": team.dealt(torch.ones(1 if team.rank == 0 else 0, 3 if team.rank == 0 else 0), 1, 2).tolist(),
    }


def norms(team: Team) -> float:
    """How far joined batch normalisation is from torch's own on the joined batch: values, two derivatives, buffers."""
    worst = 0.0
    for norm, shape in ((nn.BatchNorm1d(3), (8, 3)), (nn.BatchNorm2d(3, affine=False, momentum=None), (8, 3, 2, 2))):
        whole = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3 + 100
        kept = slice(team.rank, None, team.size)
        for weight in norm.parameters():
            weight.data.copy_(torch.tensor([0.5, -2.0, 3.0]))
        found = []
        for module, items in ((norm, whole), (JoinedBatchNorm(copy.deepcopy(norm), team), whole[kept])):
            module, items = module.double(), items.clone().requires_grad_()
            (first,) = torch.autograd.grad(module(items).sin().sum(), items, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), items)
            of_all = [items, *module.parameters()]
            plain = torch.autograd.grad(module(items).sin().sum(), of_all)
            of_weights = plain[1:] if module is norm else [team.sum(each) for each in plain[1:]]
            module.eval()
            buffers = [module.running_mean, module.running_var]
            found.append([module(items), first, second, plain[0], *of_weights, *buffers])
        for alone, joined in zip(*found, strict=True):
            worst = max(worst, float((alone[kept] if alone.ndim > 1 else alone).sub(joined).detach().abs().max()))
    return worst


def small_recipe(**options: Any) -> Recipe:
    return r3(network="compact", width=4, latent=8, batch_items=32, penalty_every_steps=2, **options)


def stop_once_heeded() -> None:
    """Ask this process for an end as soon as fit listens."""
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


def fitted(team: Team, folder: Path) -> dict[str, Any]:
    """Calls of fit in both processes: what their histories say, and how each ends."""
    gan = GAN(small_recipe(), seed=3, precision="float32").fit("digits", items=640, progress="none")
    if team.rank == 0:
        gan.save(folder / "fitted.gan")
    found: dict[str, Any] = {"histories": team.all(gan.history_), "ends": {}}
    timed = GAN(small_recipe(), seed=3).fit("digits", minutes=0.03, run=folder / "timed", progress="none")
    found["timed"] = team.all(timed.history_)
    GAN(r3(network="compact", width=4, latent=8, batch_items=32), seed=3, precision="float32").fit(
        "digits", items=1600, run=folder / "whole", progress="none", checkpoint_seconds=0
    )
    if team.rank > 0:
        threading.Thread(target=stop_once_heeded).start()
    for name, rate in (("signal", 1e-3), ("diverged", 1e6)):
        try:
            GAN(small_recipe(learning_rate=rate), seed=3).fit("digits", items=10**6, progress="none")
            end = "nothing"
        except (SystemExit, DivergedError) as error:
            end = f"{type(error).__name__} {error}"
        found["ends"][name] = team.all(end)
    try:
        GAN(small_recipe()).fit(np.full((60, 8, 8), team.rank, np.uint8), items=32, progress="none")
    except DataError as error:
        found["ends"]["other data"] = team.all(f"DataError {error}")
    return found


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    team = join("cpu")
    assert team == Team(rank, size)
    found: dict[str, Any] = {"cases": {}}
    for name, make in CASES.items():
        try:
            found["cases"][name] = max(team.all(difference(make(), team)))
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    found["changing"] = {name: team.all(after_steps(make(), team, num_steps=4)) for name, make in CHANGING.items()}
    found["lost memory"] = lost_memory(team)
    found["lost steps"] = {place: lost_step(place, team) for place in ("item", "gradient")}
    found["seen"] = [seen_items(Team()), seen_items(team)]
    found["told"] = team.all(told(team))
    found["norms"] = max(team.all(norms(team)))
    found["bfloat16"] = max(team.all(difference(make_plan(compact(), EXACT), team, "bfloat16")))
    found |= fitted(team, folder)
    if rank == 0:
        (folder / "results.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
