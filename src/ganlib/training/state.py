"""All that changes while training, and its form on disk."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ganlib.core import OptimiserSettings, Plan, Schedule
from ganlib.errors import RunError
from ganlib.training.joined import join_statistics
from ganlib.training.runtime import Runtime, seed_of


@dataclass
class Mean:
    """A running mean of named scalars, kept as tensors so that a step never waits for the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        for name, value in terms.items():
            value = value.detach().double() if value.device.type != "mps" else value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call, sorted by name: a restored mean has lost the order of its terms."""
        means = {name: float(self.sums[name]) / self.counts[name] for name in sorted(self.sums)}
        self.sums, self.counts = {}, {}
        return means


@dataclass
class State:
    """The networks, the moving average of the generator, the optimisers, and how far the training is."""

    generator: nn.Module
    discriminator: nn.Module | None
    average: nn.Module
    generator_optimiser: Optimizer
    discriminator_optimiser: Optimizer | None
    items_seen: int
    total_items: int
    shared_generator: nn.Module  # the same networks in their own turns: gradients are averaged over the processes
    shared_discriminator: nn.Module | None
    call_generator: Callable[..., Any]  # these again, compiled where asked for
    call_discriminator: Callable[..., Any] | None
    call_frozen: Callable[..., Any] | None  # the discriminator in the generator's turn, compiled where asked for
    memories: nn.ModuleDict = field(default_factory=nn.ModuleDict)  # of the penalties that remember
    augment: dict[str, Tensor] = field(default_factory=dict)  # the adaptive probability, and the mean sign it follows
    buffer: dict[str, Tensor] = field(default_factory=dict)  # of earlier fakes, once there are some
    probability: Tensor | None = None  # of the augmentation, as it is in this step; not saved
    mean: Mean = field(default_factory=Mean)
    skipped: int = 0  # steps left out since the last one that was taken, because of a value that is not finite
    rollbacks: int = 0  # to an earlier checkpoint because of such values; they decide the randomness from there on
    collapses: int = 0  # the same because of a collapse or divergence
    rate_factor: float = 1.0  # of both learning rates; a rollback lowers it
    averaged: list[tuple[Tensor, Tensor]] = field(init=False, repr=False)  # with the generator's; a copy makes its own
    watched: list[Tensor] = field(init=False, repr=False)  # all of the three networks that must be finite

    def __post_init__(self) -> None:
        ours, theirs = self.average.state_dict(), self.generator.state_dict()
        self.averaged = [(average, theirs[name]) for name, average in ours.items()]
        judges = self.discriminator.state_dict() if self.discriminator is not None else {}
        tensors = (*theirs.values(), *judges.values(), *ours.values())
        self.watched = [tensor for tensor in tensors if tensor.is_floating_point()]

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    @property
    def networks(self) -> dict[str, nn.Module | None]:
        """The two that are trained, in the order in which a fault of one reaches the other."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def pretrains(self, share: float) -> bool:
        """Whether the training is still within that share of all its items."""
        return self.items_seen < share * self.total_items

    def now(self, schedule: Schedule) -> float:
        """The present value of a schedule."""
        return schedule(self.items_seen, self.total_items)


def make_optimiser(settings: OptimiserSettings, network: nn.Module, device: str) -> Optimizer:
    """The optimiser with its numbers at the start; fused where the device has it: one pass over all weights."""
    rate, betas = settings.learning_rate(0, 1), (float(settings.beta1), float(settings.beta2(0, 1)))
    fused, weights = device.split(":")[0] in ("cpu", "cuda"), list(network.parameters())
    match settings.kind:
        case "adam":
            return torch.optim.Adam(weights, rate, betas, settings.epsilon, settings.weight_decay, fused=fused)
        case "adamw":
            return torch.optim.AdamW(weights, rate, betas, settings.epsilon, settings.weight_decay, fused=fused)
        case "sgd":
            return torch.optim.SGD(weights, rate, settings.beta1, weight_decay=settings.weight_decay, fused=fused)
        case "rmsprop":
            return torch.optim.RMSprop(weights, rate, eps=settings.epsilon, weight_decay=settings.weight_decay)


def create(plan: Plan, runtime: Runtime, seed: int, total_items: int) -> State:
    """A new state; the weights at the start are a function of the seed alone, on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", 0))
        generator, discriminator = plan.task.networks()
    generator = runtime.place(generator)
    discriminator = runtime.place(discriminator) if discriminator is not None else None
    average = copy.deepcopy(generator).eval().requires_grad_(False)
    shared_generator = runtime.team.wrap(join_statistics(generator, runtime.team))
    call_generator = runtime.compile(shared_generator)
    shared_discriminator, call_discriminator, call_frozen = None, None, None
    if discriminator is not None:
        shared_discriminator = runtime.team.wrap(join_statistics(discriminator, runtime.team))
        call_discriminator = runtime.compile(shared_discriminator)
        bare = shared_discriminator is discriminator
        call_frozen = call_discriminator if bare else runtime.compile(discriminator)
    return State(
        generator,
        discriminator,
        average,
        make_optimiser(plan.generator, generator, runtime.device),
        make_optimiser(plan.discriminator, discriminator, runtime.device) if discriminator is not None else None,
        items_seen=0,
        total_items=total_items,
        shared_generator=shared_generator,
        shared_discriminator=shared_discriminator,
        call_generator=call_generator,
        call_discriminator=call_discriminator,
        call_frozen=call_frozen,
        memories=_memories(plan, runtime),
        augment=_adaptive(plan, runtime),
    )


def _memories(plan: Plan, runtime: Runtime) -> nn.ModuleDict:
    objective = plan.objective
    named = {f"discriminator/{name}": item for name, item in objective.penalties.items()} | {
        f"generator/{name}": item for name, item in objective.generator_penalties.items()
    }
    kept = {name: item.penalty for name, item in named.items() if isinstance(item.penalty, nn.Module)}
    for module in kept.values():  # the plan's own, which a training before a rollback may have used
        for buffer in module.buffers():
            buffer.zero_()
    return nn.ModuleDict({name: runtime.place(module) for name, module in kept.items()})


def _adaptive(plan: Plan, runtime: Runtime) -> dict[str, Tensor]:
    if plan.augmentation is None or plan.augmentation.target is None:
        return {}
    start = torch.tensor(plan.augmentation.probability(0, 1), device=runtime.device)
    return {"probability": start, "sign": torch.zeros_like(start)}


def _modules(state: State) -> dict[str, nn.Module]:
    found = {"generator": state.generator, "average": state.average, "discriminator": state.discriminator}
    found |= {"memories": state.memories} if len(state.memories) else {}
    return {name: module for name, module in found.items() if module is not None}


def _optimisers(state: State) -> dict[str, Optimizer]:
    found = {"generator": state.generator_optimiser, "discriminator": state.discriminator_optimiser}
    return {name: optimiser for name, optimiser in found.items() if optimiser is not None}


def to_tensors(state: State) -> dict[str, dict[str, Tensor]]:
    """All tensors of the state by file and name."""
    files = {name: dict(module.state_dict()) for name, module in _modules(state).items()}
    for name, optimiser in _optimisers(state).items():
        files[f"{name}_optimiser"] = {
            f"{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
            for index, numbers in optimiser.state_dict()["state"].items()
            for key, value in numbers.items()
        }
    if state.augment:
        files["augment"] = dict(state.augment)
    if state.buffer:
        files["buffer"] = dict(state.buffer)
    if state.mean.sums:
        files["mean"] = dict(state.mean.sums)
    return files


def to_facts(state: State) -> dict[str, Any]:
    """All of the state that is not a tensor."""
    return {
        "items_seen": state.items_seen,
        "total_items": state.total_items,
        "mean_counts": state.mean.counts,
        "skipped": state.skipped,
        "rollbacks": state.rollbacks,
        "collapses": state.collapses,
        "rate_factor": state.rate_factor,
    }


def restore(state: State, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Put saved tensors and facts back. Raises :class:`RunError` where names or shapes are not the state's own."""
    for name, module in _modules(state).items():
        load_weights(module, tensors.get(name, {}), name)
    for name, optimiser in _optimisers(state).items():
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        numbers: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.get(f"{name}_optimiser", {}).items():
            index, _, field_name = key.partition(".")
            numbers.setdefault(int(index), {})[field_name] = _laid_out_like(weights[int(index)], value)
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": numbers, "param_groups": groups})
    state.items_seen, state.total_items = int(facts["items_seen"]), int(facts["total_items"])
    state.skipped, state.rollbacks = int(facts.get("skipped", 0)), int(facts.get("rollbacks", 0))
    state.collapses, state.rate_factor = int(facts.get("collapses", 0)), float(facts.get("rate_factor", 1.0))
    device = state.device
    for name, value in tensors.get("augment", {}).items():
        state.augment[name] = value.to(device, copy=True)
    state.buffer = {name: value.to(device, copy=True) for name, value in tensors.get("buffer", {}).items()}
    state.mean = Mean(
        {name: total.to(device) for name, total in tensors.get("mean", {}).items()}, dict(facts["mean_counts"])
    )


def _laid_out_like(weight: Tensor, value: Tensor) -> Tensor:
    """A copy in the memory order of its weight: fused optimisers read both as they lie, and files are row-major."""
    if value.shape != weight.shape:
        return value.clone()
    return torch.empty_like(weight, dtype=value.dtype).copy_(value)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Load weights whose names and shapes are all the module's own, else :class:`RunError` names the first misfit."""
    own = module.state_dict()
    for key in [*own, *tensors]:
        if key not in tensors or key not in own or own[key].shape != tensors[key].shape:
            found = tuple(tensors[key].shape) if key in tensors else "nothing"
            expected = tuple(own[key].shape) if key in own else "nothing"
            raise RunError(
                f"the saved {name} does not fit: {key} is {found}, expected {expected}; was the recipe changed?"
            )
    module.load_state_dict(dict(tensors))
