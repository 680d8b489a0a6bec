"""Values that are not finite: caught in the step they appear in, before an update, and named by their first cause.

While all is well each turn costs one reduction: over its loss and gradients, in the generator's turn over all weights,
buffers and the average too. What an update then makes of finite numbers is finite. Only when such a sum is not are the
single tensors searched, in the order in which one makes the next so: the items, weights and buffers, terms of the loss,
gradients.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ganlib.core import Batch, Terms
from ganlib.errors import DivergedError
from ganlib.training.state import State
from ganlib.training.team import Team

Kind = Literal["input", "weight", "buffer", "average", "term", "gradient", "optimiser"]
Named = tuple[Kind, str, Tensor]


@dataclass(frozen=True)
class Trouble:
    """The first thing that is not finite, and whether the state itself is hurt: a weight, a buffer or the average."""

    kind: Kind
    name: str  # "real", "generator.linear.weight", "discriminator/r1"
    value: float  # the first such number; a finite one is too large to be squared
    items_seen: int  # before the step
    lasting: bool

    def __str__(self) -> str:
        kind = "gradient of" if self.kind == "gradient" else self.kind
        number = f"{self.value:.3g}, too large to be squared" if math.isfinite(self.value) else str(self.value)
        return f"the {kind} {self.name} is {number} in the step after item {self.items_seen:,}"


class NonFinite(DivergedError):
    """A step came upon a value that is not finite, and made no update with it. `trouble` says what it was."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(
            f"{trouble}; train again with a lower learning rate or a larger penalty, or look for extreme values in "
            "the data"
        )
        self.trouble = trouble


def check_inputs(batch: Batch, items_seen: int, team: Team | None = None) -> None:
    """Raises :class:`NonFinite` for an item that is not finite, before it reaches a layer that keeps statistics.

    Where one of several processes has such an item, all of them raise.
    """
    found: Trouble | None = None
    for tensor in batch.values():
        if tensor.is_floating_point() and not math.isfinite(tensor.sum().item()):
            inputs: list[Named] = [("input", name, tensor) for name, tensor in batch.items()]
            for kind, name, value in _bad(inputs):
                found = found or Trouble(kind, name, value, items_seen, lasting=False)
    team = team or Team()
    if any(team.largest(found is not None)):
        raise NonFinite(_agreed(found, team))


def check_turn(
    state: State,
    turn: Literal["generator", "discriminator"],
    batch: Batch,
    losses: Sequence[Tensor],
    terms: Terms,
    team: Team,
) -> None:
    """Raises :class:`NonFinite` and drops the gradients where the network named `turn` must not be updated with them.

    The generator's turn, the last of a step, looks at all weights, buffers and the average too: not each of them
    reaches a loss, as the embedding of a class that is not in the batch.
    """
    optimiser = state.generator_optimiser if turn == "generator" else state.discriminator_optimiser
    assert optimiser is not None
    # The optimiser has a list of the weights: walking through the modules would cost as much as the check.
    weights = (weight for group in optimiser.param_groups for weight in group["params"])
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not _finite([*gradients, *losses, *(state.watched if turn == "generator" else ())]):
        trouble = _agreed(_first_cause(state, turn, batch, terms), team)
        optimiser.zero_grad()
        raise NonFinite(trouble)


def check_tensors(tensors: Mapping[str, Mapping[str, Tensor]], items_seen: int) -> None:
    """Raises :class:`NonFinite` for a state that is about to be saved and holds a number that is not finite."""
    kinds: dict[str, Kind] = {"average": "average", "mean": "term"}
    groups = sorted(tensors, key=lambda group: (group.endswith("_optimiser"), group in kinds))
    everything: list[Named] = []
    for group in groups:
        kind: Kind = "optimiser" if group.endswith("_optimiser") else kinds.get(group, "weight")
        members: list[Named] = [(kind, f"{group}.{name}", tensor) for name, tensor in tensors[group].items()]
        everything += members
    for kind, name, value in _bad(everything):
        raise NonFinite(Trouble(kind, name, value, items_seen, lasting=True))


def _agreed(found: Trouble | None, team: Team) -> Trouble:
    """What all processes raise: the first cause that any of them has seen."""
    seen = [Trouble(**each) for each in team.all(None if found is None else asdict(found)) if each is not None]
    return min(seen, key=lambda trouble: get_args(Kind).index(trouble.kind))


def _first_cause(state: State, turn: Literal["generator", "discriminator"], batch: Batch, terms: Terms) -> Trouble:
    network = state.networks[turn]
    assert network is not None
    inputs: list[Named] = [("input", name, tensor) for name, tensor in batch.items()]
    modules = [(name, module) for name, module in state.networks.items() if module is not None]
    stays: list[Named] = [item for name, module in modules for item in _state_of(name, module)]
    averages: list[Named] = [("average", name, value) for _, name, value in _state_of("average", state.average)]
    stays += averages
    of_terms: list[Named] = [("term", name, term) for name, term in terms.items()]
    # The backward pass runs from the last layer to the first: of several gradients the last is the cause.
    of_loss: list[Named] = [
        ("gradient", f"{turn}.{name}", weight.grad)
        for name, weight in reversed(list(network.named_parameters()))
        if weight.grad is not None
    ]
    places: list[Named] = [*inputs, *stays, *of_terms, *of_loss]
    found = next(_bad(places), None) or _largest([place for place in places if place[2].is_floating_point()])
    return Trouble(*found, state.items_seen, lasting=next(_bad(stays), None) is not None)


@torch.no_grad()
def _finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all numbers are finite and the sum of their squares is too: optimisers square gradients."""
    norms = torch._foreach_norm(list(tensors))  # pyright: ignore[reportPrivateImportUsage]
    return math.isfinite(torch.stack(norms).sum().item())


def _state_of(network: str, module: nn.Module) -> Iterator[Named]:
    for name, weight in module.named_parameters():
        yield "weight", f"{network}.{name}", weight
    for name, buffer in module.named_buffers():
        yield "buffer", f"{network}.{name}", buffer


def _bad(named: Iterable[Named]) -> Iterator[tuple[Kind, str, float]]:
    """Those that hold a number that is not finite, and the first such number of each."""
    for kind, name, tensor in named:
        if tensor.is_floating_point():
            values = tensor.detach().flatten()
            wrong = values[~values.isfinite()]
            if len(wrong):
                yield kind, name, float(wrong[0])


def _largest(named: Sequence[Named]) -> tuple[Kind, str, float]:
    """The tensor with the largest number, where all are finite and only their squares are not."""
    kind, name, tensor = max(named, key=lambda item: float(item[2].detach().abs().max()))
    return kind, name, float(tensor.detach().abs().max())
