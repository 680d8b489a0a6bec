"""Regularisers of the discriminator by its slope, and the constraint. Usable alone; more are in the modules below.

An item's logit is the mean over its heads and patches; ∇ is the derivative to the raw item, and ‖·‖² sums over all its
numbers, so that no value depends on the size of the batch.
"""

import copy
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from ganlib.core import (
    Condition,
    Constraint,
    Draws,
    Judge,
    Objective,
    Pair,
    Penalty,
    Verdict,
)
from ganlib.errors import UsageError

Scalar = Float[Tensor, ""]


def item_logits(verdict: Verdict) -> Float[Tensor, " batch"]:
    """One logit per item: the mean over heads of the mean over patches."""
    return torch.stack([logits.flatten(1).mean(1) if logits.ndim > 1 else logits for logits in verdict.logits]).mean(0)


def over_processes(mean: Tensor, draws: Draws) -> Tensor:
    """The mean over the whole batch, of a mean over the rows of each process that shares it. Has no gradient."""
    if draws.world == 1:
        return mean.detach()
    total = mean.detach().clone()
    dist.all_reduce(total)
    return total / draws.world


def squared_gradient(logits: Float[Tensor, " batch"], items: Float[Tensor, "batch *item"]) -> Float[Tensor, " batch"]:
    """‖∂ logits / ∂ items‖², per item; differentiable. Right where no layer of the discriminator mixes items."""
    (gradient,) = torch.autograd.grad(logits.sum(), items, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def squared_difference(
    judge: Judge, items: Tensor, logits: Float[Tensor, " batch"], sigma: float, draws: Draws
) -> Float[Tensor, " batch"]:
    """((D(x+σε) - D(x)) / σ)² with ε ~ N(0, I): its mean over ε is ‖∇D(x)‖² + O(σ²). Lin et al. 2025, arXiv:2501.08316.

    It needs no second derivative. In bfloat16 the difference of two logits would be rounding: `judge` runs in float32.
    """
    noise = draws.normal(*items.shape, dtype=items.dtype)
    return ((item_logits(judge(items.detach() + sigma * noise)) - logits) / sigma).square()


@dataclass(frozen=True)
class R1(Penalty):
    """½ E‖∇D(x)‖² on real items; weight it by γ. Mescheder et al. 2018, arXiv:1801.04406.

    Exact by double backward, or by finite difference where `sigma` is given.
    """

    sigma: float | None = None

    @property
    def double_backward(self) -> bool:
        return self.sigma is None

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        if self.sigma is None:
            return 0.5 * squared_gradient(item_logits(real), pair.real).mean()
        return 0.5 * squared_difference(judge, pair.real, item_logits(real), self.sigma, draws).mean()


@dataclass(frozen=True)
class R2(Penalty):
    """½ E‖∇D(G(z))‖² on fake items; weight it by γ. Mescheder et al. 2018, arXiv:1801.04406."""

    sigma: float | None = None

    @property
    def double_backward(self) -> bool:
        return self.sigma is None

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        if self.sigma is None:
            return 0.5 * squared_gradient(item_logits(fake), pair.fake).mean()
        return 0.5 * squared_difference(judge, pair.fake, item_logits(fake), self.sigma, draws).mean()


def _unit_slope(judge: Judge, items: Tensor) -> Scalar:
    items = items.detach().requires_grad_()
    squared = squared_gradient(item_logits(judge(items)), items)
    # The derivative of a root is infinite at zero, where a new or dead discriminator may be.
    return ((squared + 1e-12).sqrt() - 1).square().mean()


@dataclass(frozen=True)
class GradientPenalty(Penalty):
    """E(‖∇D(x̂)‖-1)², x̂ uniform on the line between a real and a fake item; λ = 10.

    Gulrajani et al. 2017, arXiv:1704.00028.
    """

    @property
    def double_backward(self) -> bool:
        return True

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        shape = (len(pair.real), *[1] * (pair.real.ndim - 1))
        share = draws.uniform(*shape, dtype=pair.real.dtype)
        return _unit_slope(judge, torch.lerp(pair.real.detach(), pair.fake.detach(), share))


@dataclass(frozen=True)
class Dragan(Penalty):
    """E(‖∇D(x+δ)‖-1)², δ = ½ std(x) U[0, 1) around real items; λ = 10. Kodali et al. 2017, arXiv:1705.07215."""

    @property
    def double_backward(self) -> bool:
        return True

    def __call__(self, judge: Judge, pair: Pair, real: Verdict, fake: Verdict, draws: Draws) -> Scalar:
        items = pair.real.detach()
        noise = draws.uniform(*items.shape, dtype=items.dtype)
        centre = over_processes(items.mean(), draws)
        deviation = over_processes((items - centre).square().mean(), draws).sqrt()
        return _unit_slope(judge, items + 0.5 * deviation * noise)


def differentiable_twice(discriminator: nn.Module, items: Tensor, condition: Condition) -> bool:
    """Whether the gradient of the logits to the items can be differentiated again; tried on a copy of the network.

    Fused attention, ``grid_sample`` and some custom functions have no second derivative.
    """
    network, items = copy.deepcopy(discriminator), items.detach().requires_grad_()
    try:
        squared_gradient(item_logits(network(items, condition)), items).sum().backward()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def without_double_backward(objective: Objective, sigma: float = 0.01) -> Objective:
    """The same objective with R1 and R2 by finite difference. Raises UsageError for a penalty that has no such form."""
    changed = dict(objective.penalties)
    for name, item in objective.penalties.items():
        if isinstance(item.penalty, R1 | R2):
            changed[name] = replace(item, penalty=replace(item.penalty, sigma=item.penalty.sigma or sigma))
        elif isinstance(item.penalty, Penalty) and item.penalty.double_backward:
            raise UsageError(
                f"the penalty {name!r} needs a discriminator that can be differentiated twice; take R1 and R2"
            )
    return replace(objective, penalties=changed)


@dataclass(frozen=True)
class ClipWeights(Constraint):
    """|w| <= bound for every weight of the discriminator. Arjovsky et al. 2017, arXiv:1701.07875, bound 0.01."""

    bound: float = 0.01

    @torch.no_grad()
    def __call__(self, discriminator: nn.Module) -> None:
        for weight in discriminator.parameters():
            weight.clamp_(-self.bound, self.bound)
