"""Unrolled steps: the generator faces the discriminator as it will answer. Metz et al. 2017, arXiv:1611.02163."""

from collections.abc import Callable

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
    the paper's equations. With Adam and RMSprop it is 1/(√v + ε) by the second moments v that the optimiser has, held
    fixed: at their rates a bare gradient would not move. Momentum is left out. The real discriminator, its statistics
    too, stays as it is.
    """
    network, optimiser, loss = state.discriminator, state.discriminator_optimiser, plan.objective.loss
    assert network is not None and optimiser is not None and loss is not None
    if not runtime.team.alone:
        raise UsageError("unrolled steps run in one process; leave out --devices, or the unrolled steps")
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    scales = {name: _scale(optimiser, weight) for name, weight in network.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    rate = optimiser.param_groups[0]["lr"]
    given = change(pair.real), change(pair.fake)
    for _ in range(plan.unrolled_steps):
        real, fake = (functional_call(network, {**weights, **buffers}, (items, pair.condition)) for items in given)
        heads = zip(real.logits, fake.logits, strict=True)
        value = torch.stack([loss.discriminator(r.float(), f.float()) for r, f in heads]).mean()
        found = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
        weights = {
            name: weight if gradient is None else weight - rate * scales[name] * gradient
            for (name, weight), gradient in zip(weights.items(), found, strict=True)
        }
    return lambda items, condition: functional_call(network, {**weights, **buffers}, (items, condition))


def _scale(optimiser: Optimizer, weight: nn.Parameter) -> Tensor | float:
    """What the optimiser multiplies the gradient of a weight with, besides the rate."""
    group, known = optimiser.param_groups[0], optimiser.state.get(weight, {})
    if "exp_avg_sq" in known:
        moment = known["exp_avg_sq"] / (1 - group["betas"][1] ** known["step"])
    elif "square_avg" in known:
        moment = known["square_avg"]
    else:
        return 1.0 if isinstance(optimiser, torch.optim.SGD) else 0.0  # a weight that no update has reached
    return 1 / (moment.sqrt() + group["eps"])
