"""Unrolled steps: the generator faces the discriminator as it will answer. Metz et al. 2017, arXiv:1611.02163."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from ganlib.core import Change, Condition, Pair, Plan, Verdict
from ganlib.errors import UsageError
from ganlib.training.runtime import Runtime
from ganlib.training.state import State

Network = Callable[[Tensor, Condition], Verdict]


def looked_ahead(state: State, plan: Plan, pair: Pair, change: Change, runtime: Runtime) -> Network:
    """The discriminator after `plan.unrolled_steps` virtual updates on this pair, a differentiable function of it.

    θ ← θ - η c ∇L(θ), L the adversarial loss, without penalties, and η the discriminator's rate. With SGD c = 1, as in
    the paper's equations. With Adam and RMSprop c = 1/(√v + ε), v the second moments that the optimiser has, moved by
    the virtual gradients too but not differentiated: at the rates of these optimisers a bare gradient would not move.
    Momentum is left out. The real discriminator, its statistics too, stays as it is.
    """
    network, optimiser, loss = state.discriminator, state.discriminator_optimiser, plan.objective.loss
    assert network is not None and optimiser is not None and loss is not None
    if not runtime.team.alone:
        raise UsageError("unrolled steps run in one process; leave out --devices, or the unrolled steps")
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    moments = [_Moment.of(optimiser, weight) for weight in network.parameters()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    rate = optimiser.param_groups[0]["lr"]
    given = change(pair.real), change(pair.fake)
    for _ in range(plan.unrolled_steps):
        real, fake = (functional_call(network, {**weights, **buffers}, (items, pair.condition)) for items in given)
        heads = zip(real.logits, fake.logits, strict=True)
        value = torch.stack([loss.discriminator(r.float(), f.float()) for r, f in heads]).mean()
        found = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
        moved = {}
        for (name, weight), gradient, moment in zip(weights.items(), found, moments, strict=True):
            moved[name] = weight if gradient is None else weight - rate * moment.scale(gradient.detach()) * gradient
        weights = moved
    return lambda items, condition: functional_call(network, {**weights, **buffers}, (items, condition))


@dataclass
class _Moment:
    """The mean square of a weight's gradients as an optimiser keeps it, and goes on from there."""

    mean: Tensor
    decay: float
    steps: float | None  # None where the mean is not corrected for its start at zero
    epsilon: float

    @classmethod
    def of(cls, optimiser: Optimizer, weight: nn.Parameter) -> "_Moment":
        group, known = optimiser.param_groups[0], optimiser.state.get(weight, {})
        nothing = torch.zeros_like(weight, requires_grad=False)
        match optimiser:
            case torch.optim.Adam():  # AdamW is one too
                mean = known.get("exp_avg_sq", nothing)
                return cls(mean, float(group["betas"][1]), float(known.get("step", 0.0)), group["eps"])
            case torch.optim.RMSprop():
                return cls(known.get("square_avg", nothing), group["alpha"], None, group["eps"])
        return cls(torch.ones_like(nothing), 1.0, None, 0.0)

    def scale(self, gradient: Tensor) -> Tensor:
        """What the optimiser multiplies this next gradient with, besides the rate."""
        self.mean = torch.lerp(gradient.square(), self.mean, self.decay)
        corrected = self.mean
        if self.steps is not None:
            self.steps += 1
            corrected = self.mean / (1 - self.decay**self.steps)
        return 1 / (corrected.sqrt() + self.epsilon)
