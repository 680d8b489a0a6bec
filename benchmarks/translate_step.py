"""Steps per second of translations against plain loops: same networks, widths, batch and loss terms, in alternation.

    python benchmarks/translate_step.py [--recipes pix2pix cyclegan cut attributes] [--shape 3 32 32] [--json]

The plain loops are those of the papers' own code: float32, two Adam, the discriminator frozen in the generator's turn,
one forward of each generator per step, and no moving average, no checks and no memory format. Ours is
``training.step.step`` on the recipe's own plan and so has all that besides. pix2pix is `adversary="paper"` without
`perceptual`, which are the paper's terms; cyclegan has the paper's buffer of earlier fakes in both; cut encodes again
what its queries and keys are taken of; attributes has R1 and R2 in every eighth step in both. Random numbers that are
drawn for a step, but those of dropout and the buffer, are given to the plain loops.

First it is seen to that both do the same work: from the same weights and the same batch, with rates of zero so that the
order of the turns does not matter, all terms agree, and all gradients (by Adam's first moments).
`difference_of_terms` is the largest of any term, `difference_of_gradients` that of a network's as one vector; both are
relative.

Times are of the processor (one thread). Each round takes `steps` of the plain loop, of ours in float32 and of ours in
the default precision; a ratio is of one round, over 1 where ours is faster; told are the median, least and largest.
"""

import copy
import json
import random
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import make_parser, note
from ganlib.core import Batch, OptimiserSettings, Plan, Spec, constant
from ganlib.penalties import item_logits
from ganlib.recipe import Recipe, Setting
from ganlib.recipes.attributes import attributes
from ganlib.recipes.cut import cut
from ganlib.recipes.cyclegan import cyclegan
from ganlib.recipes.pix2pix import pix2pix
from ganlib.spec import Attribute
from ganlib.tasks.contrast import Contrast, patch_contrast
from ganlib.tasks.editing import Edit
from ganlib.training.runtime import Runtime, choose_precision
from ganlib.training.state import State, create
from ganlib.training.step import step

Terms = dict[str, Tensor]


class Plain(ABC):
    """A loop that a person writes, on copies of the networks given."""

    def __init__(self, plan: Plan, generator: nn.Module, discriminator: nn.Module) -> None:
        self.plan = plan
        self.g: Any = copy.deepcopy(generator)
        self.d: Any = copy.deepcopy(discriminator)
        self.opt_g, self.opt_d = adam(self.g, plan.generator), adam(self.d, plan.discriminator)
        self.weights = {name: weight(0, 1) for name, weight in plan.objective.weights.items()}

    @abstractmethod
    def step(self, batch: Batch) -> Terms:
        """Both turns; their terms by the names that ours have."""

    def update(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def adam(network: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2(0, 1))
    return torch.optim.Adam(network.parameters(), lr=settings.learning_rate(0, 1), betas=betas)


def logits_of(network: nn.Module, items: Tensor, condition: Tensor | None = None) -> Tensor:
    return network(items, condition).logits[0]


def least_squares(network: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    on_real, on_fake = logits_of(network, real), logits_of(network, fake)
    return 0.5 * F.mse_loss(on_real, torch.ones_like(on_real)) + 0.5 * F.mse_loss(on_fake, torch.zeros_like(on_fake))


def convincing(network: nn.Module, fake: Tensor) -> Tensor:
    logits = logits_of(network, fake)
    return 0.5 * F.mse_loss(logits, torch.ones_like(logits))


class PlainPix2pix(Plain):
    """The discriminator on pairs, then the generator. Isola et al. 2017, arXiv:1611.07004."""

    def step(self, batch: Batch) -> Terms:
        given, real = batch["condition"], batch["real"]
        fake = self.g(given)
        self.d.requires_grad_(True)
        on_fake, on_real = logits_of(self.d, fake.detach(), given), logits_of(self.d, real, given)
        ones, zeros = torch.ones_like(on_real), torch.zeros_like(on_fake)
        loss = F.binary_cross_entropy_with_logits(on_fake, zeros) + F.binary_cross_entropy_with_logits(on_real, ones)
        self.update(self.opt_d, loss)
        terms = {"discriminator/adversarial": loss}
        self.d.requires_grad_(False)
        adversarial = F.binary_cross_entropy_with_logits(logits_of(self.d, fake, given), ones)
        content = F.l1_loss(fake, real)
        self.update(self.opt_g, adversarial + self.weights["content"] * content)
        return terms | {"generator/adversarial": adversarial, "generator/content": content}


class Pool:
    """The buffer of earlier fakes, as CycleGAN's: 50 pictures, one exchanged with a probability of a half."""

    def __init__(self, items: int) -> None:
        self.items, self.kept = items, list[Tensor]()

    def query(self, fakes: Tensor) -> Tensor:
        shown = []
        for fake in fakes.detach():
            if len(self.kept) < self.items:
                self.kept.append(fake.clone())
                shown.append(fake)
            elif random.random() < 0.5:
                at = random.randrange(self.items)
                shown.append(self.kept[at])
                self.kept[at] = fake.clone()
            else:
                shown.append(fake)
        return torch.stack(shown)


class PlainCycleGAN(Plain):
    """Both generators first, then both discriminators. Zhu et al. 2017, arXiv:1703.10593."""

    def __init__(self, plan: Plan, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__(plan, generator, discriminator)
        (self.to_a, self.to_b), (self.d_a, self.d_b) = self.g.domains, self.d.domains  # type: ignore[misc]
        self.pools = Pool(50), Pool(50)

    def step(self, batch: Batch) -> Terms:
        a, b = batch["real"][0::2], batch["real"][1::2]
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        back_a, back_b = self.to_a(fake_b), self.to_b(fake_a)
        self.d.requires_grad_(False)
        terms = {
            "generator/adversarial": (convincing(self.d_a, fake_a) + convincing(self.d_b, fake_b)) / 2,
            "generator/cycle": (F.l1_loss(back_a, a) + F.l1_loss(back_b, b)) / 2,
            "generator/identity": (F.l1_loss(self.to_a(a), a) + F.l1_loss(self.to_b(b), b)) / 2,
        }
        own = sum(weight * terms[f"generator/{name}"] for name, weight in self.weights.items())
        self.update(self.opt_g, terms["generator/adversarial"] + own)
        self.d.requires_grad_(True)
        self.opt_d.zero_grad()
        losses = []
        judged = ((self.d_a, a, fake_a, self.pools[0]), (self.d_b, b, fake_b, self.pools[1]))
        for network, real, fake, pool in judged:
            losses.append(least_squares(network, real, pool.query(fake)) / 2)
            losses[-1].backward()
        self.opt_d.step()
        return terms | {"discriminator/adversarial": losses[0] + losses[1]}


class PlainCUT(Plain):
    """The discriminator, then the generator and its heads, encoding again. Park et al. 2020, arXiv:2007.15651."""

    def step(self, batch: Batch) -> Terms:
        assert isinstance(self.plan.task, Contrast)
        a, b = batch["real"][0::2], batch["real"][1::2]
        places = [batch[f"places{number}"] for number in range(len(self.plan.task.shapes))]
        fake, same = self.g.generator(torch.cat([a, b])).chunk(2)  # type: ignore[operator]
        self.d.requires_grad_(True)
        judged = least_squares(self.d, b, fake.detach())
        self.update(self.opt_d, judged)
        self.d.requires_grad_(False)
        terms = {
            "generator/adversarial": convincing(self.d, fake),
            "generator/contrast": self.contrast(a, fake, [at[0::2] for at in places]),
            "generator/identity": self.contrast(b, same, [at[1::2] for at in places]),
        }
        own = sum(weight * terms[f"generator/{name}"] for name, weight in self.weights.items())
        self.update(self.opt_g, terms["generator/adversarial"] + own)
        return terms | {"discriminator/adversarial": judged}

    def contrast(self, given: Tensor, made: Tensor, places: Sequence[Tensor]) -> Tensor:
        encode, heads = self.g.generator.features, self.g.projection  # type: ignore[union-attr]
        queries, keys = heads(encode(made), places), heads(encode(given), places)  # type: ignore[operator]
        return torch.stack([patch_contrast(q, k) for q, k in zip(queries, keys, strict=True)]).mean()


class PlainAttributes(Plain):
    """The discriminator with R1 and R2 where they are due, then the generator. Choi et al. 2018, arXiv:1711.09020."""

    steps = 0

    def step(self, batch: Batch) -> Terms:
        task, real, r1 = self.plan.task, batch["real"], self.plan.objective.penalties["r1"]
        assert isinstance(task, Edit)
        own = task.vector(batch)
        half = len(real) // 2
        wanted, partner = own.roll(half, 0), real.roll(half, 0)
        edited = self.g(real, wanted)
        back = self.g(edited.items, own)
        self.d.requires_grad_(True)
        due, self.steps = self.steps % r1.every_steps == 0, self.steps + 1
        items = [partner.detach().requires_grad_(due), edited.items.detach().requires_grad_(due)]
        verdicts = [self.d(each, wanted) for each in items]
        terms = {"adversarial": pairing(verdicts[1].logits, verdicts[0].logits), **self.read(verdicts[0], wanted)}
        loss = terms["adversarial"] + self.weighted(terms)
        if due:
            for name, verdict, each in zip(("r1", "r2"), verdicts, items, strict=True):
                (gradient,) = torch.autograd.grad(item_logits(verdict).sum(), each, create_graph=True)
                terms[name] = 0.5 * gradient.square().flatten(1).sum(1).mean()
                loss = loss + r1.every_steps * r1.weight(0, 1) * terms[name]
        self.update(self.opt_d, loss)
        found = {f"discriminator/{name}": term for name, term in terms.items()}
        self.d.requires_grad_(False)
        verdicts = [self.d(partner, wanted), self.d(edited.items, wanted)]
        terms = {"adversarial": pairing(verdicts[0].logits, verdicts[1].logits), **self.read(verdicts[1], wanted)}
        mask = edited.mask
        terms |= {"cycle": F.l1_loss(back.items, real), "area": (1 - mask).mean()}
        terms["roughness"] = (mask.diff(dim=2).abs().sum() + mask.diff(dim=3).abs().sum()) / mask.numel()
        self.update(self.opt_g, terms["adversarial"] + self.weighted(terms))
        return found | {f"generator/{name}": term for name, term in terms.items()}

    def read(self, verdict: object, wanted: Tensor) -> Terms:
        classes = self.plan.task.num_classes  # type: ignore[attr-defined]
        read = verdict.classes  # type: ignore[attr-defined]
        return {
            "class": F.cross_entropy(read[:, :classes], wanted[:, :classes]),
            "values": F.mse_loss(read[:, classes:], wanted[:, classes:]),
        }

    def weighted(self, terms: Terms) -> Tensor:
        return sum(self.weights[name] * term for name, term in terms.items() if name in self.weights)  # type: ignore[return-value]


def pairing(worse: Sequence[Tensor], better: Sequence[Tensor]) -> Tensor:
    return torch.stack([F.softplus(w - b).mean() for w, b in zip(worse, better, strict=True)]).mean()


@dataclass(frozen=True)
class Case:
    """A recipe and the plain loop beside it."""

    recipe: Recipe
    loop: type[Plain]


CASES = {
    "pix2pix": Case(pix2pix(adversary="paper", perceptual=0.0), PlainPix2pix),
    "cyclegan": Case(cyclegan(), PlainCycleGAN),
    "cut": Case(cut(), PlainCUT),
    "attributes": Case(attributes(), PlainAttributes),
}


def make_plan(name: str, shape: tuple[int, int, int]) -> Plan:
    spec = Spec("image", shape)
    match name:
        case "pix2pix":
            spec = replace(spec, condition=spec)
        case "attributes":
            spec = replace(spec, classes=tuple("abcdefghij"), attributes=(Attribute("thickness", 0.0, 1.0),))
        case _:
            spec = replace(spec, classes=("a", "b"))
    return CASES[name].recipe.plan(Setting(spec, 10_000, "cpu", conditional=bool(spec.classes)))


def make_batch(name: str, plan: Plan, shape: tuple[int, int, int]) -> Batch:
    count = plan.batch_items
    batch = {"real": torch.rand(count, *shape) * 2 - 1}
    match name:
        case "pix2pix":
            return {**batch, "condition": torch.rand(count, *shape) * 2 - 1}
        case "attributes":
            return {**batch, "label": torch.arange(count) % 10, "attributes": torch.rand(count, 1)}
        case _:
            return {**batch, "label": torch.arange(count) % 2}


def beginning(name: str, plan: Plan, batch: Batch, runtime: Runtime) -> tuple[State, Plain, Batch]:
    """Ours, a plain loop from the same weights, and the batch with what ours draws in its first step."""
    state = create(plan, runtime, 0, 10**9)
    assert state.discriminator is not None
    with runtime.randomness(0, 0) as draws:
        drawn = plan.task.draw(batch, draws)
    plain = CASES[name].loop(plan, state.generator, state.discriminator)
    for network in (plain.g, plain.d):
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return state, plain, drawn


def agreement(name: str, plan: Plan, batch: Batch) -> tuple[float, float]:
    """The largest relative difference of a term, and of a gradient, in the first step at rates of zero."""
    still = {
        turn: replace(settings, learning_rate=constant(0.0))
        for turn, settings in (("generator", plan.generator), ("discriminator", plan.discriminator))
    }
    plan = replace(plan, generator=still["generator"], discriminator=still["discriminator"])
    state, plain, drawn = beginning(name, plan, batch, runtime := Runtime())
    network: Any
    for network in (state.generator, plain.g):
        if name == "pix2pix":
            network.dropout = 0.0  # what is dropped depends on the order in memory
    ours, theirs = step(state, plan, runtime.move(batch), runtime, 0), plain.step(drawn)
    if ours.keys() != theirs.keys():
        raise AssertionError(f"ours has the terms {sorted(ours)}, the plain loop {sorted(theirs)}")
    terms = max(apart(ours[term], theirs[term]) for term in ours)
    pairs = ((state.generator_optimiser, plain.opt_g), (state.discriminator_optimiser, plain.opt_d))
    return terms, max(apart(moments(mine), moments(his)) for mine, his in pairs)


def moments(optimiser: torch.optim.Optimizer | None) -> Tensor:
    """Adam's averages of the gradients, all in a row."""
    assert optimiser is not None
    weights = (weight for group in optimiser.param_groups for weight in group["params"])
    return torch.cat([optimiser.state[weight]["exp_avg"].flatten() for weight in weights])


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().norm() / other.detach().norm())


def race(name: str, plan: Plan, batch: Batch, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of the processor per step of each round; the first, which warms up, is left out."""
    runtimes = {"float32": Runtime(), "default": Runtime(precision=choose_precision("auto", "cpu"))}
    states = {kind: beginning(name, plan, batch, runtime)[0] for kind, runtime in runtimes.items()}
    _, plain, drawn = beginning(name, plan, batch, Runtime())
    seconds: dict[str, list[float]] = {kind: [] for kind in ("plain", *states)}
    for number in range(rounds + 1):
        for kind, found in seconds.items():
            start = time.process_time()
            for _ in range(steps):
                if kind == "plain":
                    plain.step(drawn)
                else:
                    step(states[kind], plan, runtimes[kind].move(batch), runtimes[kind], 0)
            if number:
                found.append((time.process_time() - start) / steps)
    return seconds


def result_of(name: str, shape: tuple[int, int, int], rounds: int, steps: int) -> dict[str, object]:
    torch.manual_seed(1)
    plan = make_plan(name, shape)
    batch = make_batch(name, plan, shape)
    terms, gradients = agreement(name, plan, batch)
    seconds = race(name, plan, batch, rounds, steps)
    found: dict[str, object] = {}
    for kind in ("float32", "default"):
        ratios = [a / b for a, b in zip(seconds["plain"], seconds[kind], strict=True)]
        spread = {"": statistics.median(ratios), "_low": min(ratios), "_high": max(ratios)}
        found |= {f"ratio_{kind}{word}": round(ratio, 3) for word, ratio in spread.items()}
    milliseconds = {kind: round(1000 * statistics.median(values), 1) for kind, values in seconds.items()}
    differences = {"difference_of_terms": terms, "difference_of_gradients": gradients}
    return {**found, "milliseconds": milliseconds, **differences, "batch": plan.batch_items}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--recipes", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--shape", type=int, nargs=3, default=(1, 28, 28), metavar=("CHANNELS", "HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8, help="of each in each round; of attributes a multiple of 8")
    args = parser.parse_args()
    torch.set_num_threads(1)
    told: Mapping[str, object] = {
        "precision": choose_precision("auto", "cpu"),
        "shape": list(args.shape),
        "rounds": args.rounds,
        "steps": args.steps,
        "torch": torch.__version__,
    }
    found: dict[str, dict[str, object]] = {}
    for name in args.recipes:
        found[name] = result_of(name, tuple(args.shape), args.rounds, args.steps)
        note(f"{name}: {json.dumps(found[name])}")
    if args.json:
        print(json.dumps({**found, **told}))
    else:
        print("\n".join(f"{key:12} {value}" for key, value in {**found, **told}.items()))


if __name__ == "__main__":
    main()
