"""The adversarial step: one turn of the discriminator, one of the generator. All tasks share it."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ganlib.core import (
    Batch,
    Change,
    Draws,
    GeneratorPenalty,
    Grows,
    Judge,
    Pair,
    Penalty,
    Plan,
    Terms,
    Verdict,
    WeightedPenalty,
    WeightPenalty,
)
from ganlib.training.augmenting import adapt, changed, set_probability, with_pseudo
from ganlib.training.buffering import with_earlier
from ganlib.training.guard import check_turn
from ganlib.training.runtime import Runtime
from ganlib.training.state import State
from ganlib.training.team import unsynchronised
from ganlib.training.unrolled import looked_ahead

Made = tuple[Batch, Pair]
"""What the discriminator's turn leaves for the generator's: all that was drawn, and the pair made of it."""


def step(state: State, plan: Plan, batch: Batch, runtime: Runtime, seed: int) -> Terms:
    """Update the discriminator `discriminator_steps` times and the generator once; return all terms, detached.

    The log is the loss: the terms returned are those whose weighted sum was differentiated. Raises
    :class:`ganlib.training.guard.NonFinite` before an update with a number that is not finite; what a turn before it
    updated stays, and ``items_seen`` is as it was.
    """
    terms: Terms = {}
    set_rates(state, plan)
    set_probability(state, plan.augmentation)
    grow(state)
    with runtime.randomness(seed, state.items_seen) as draws:
        parts = split(batch, plan.discriminator_steps)
        step_number = state.items_seen // (plan.batch_items * plan.discriminator_steps)
        made: Made | None = None
        alone = state.pretrains(plan.pretraining)
        if state.discriminator is not None and not alone:
            for turn, part in enumerate(parts):
                due = due_penalties(plan.objective.penalties, step_number * plan.discriminator_steps + turn)
                reuse = plan.reuse_fakes and plan.accumulate == 1 and turn == len(parts) - 1
                made, terms_of_turn = discriminator_turn(state, plan, part, due, reuse, runtime, draws)
                terms |= terms_of_turn
        due = {} if alone else due_penalties(plan.objective.generator_penalties, step_number)
        terms |= generator_turn(state, plan, parts[-1], made, due, runtime, draws)
    unknown = plan.objective.weights.keys() - {name.partition("/")[2] for name in terms}
    if unknown:
        raise KeyError(f"weights {sorted(unknown)} are for no term; this task has {sorted(terms)}")
    if state.probability is not None:
        terms["augment/probability"] = state.probability
    update_average(state, plan)
    state.skipped = 0
    state.items_seen += plan.batch_items * plan.discriminator_steps
    return terms


def discriminator_turn(
    state: State,
    plan: Plan,
    batch: Batch,
    due: Mapping[str, WeightedPenalty],
    reuse: bool,
    runtime: Runtime,
    draws: Draws,
) -> tuple[Made | None, Terms]:
    """One update of the discriminator. Returns what it made too, with its graph, where `reuse` asks for it."""
    assert state.discriminator is not None and state.discriminator_optimiser is not None
    total_of_terms: Terms = {}
    losses, pair, drawn = [], None, plan.task.draw(batch, draws)
    assert state.shared_discriminator is not None
    for number, part in enumerate(split(drawn, plan.accumulate)):
        with torch.set_grad_enabled(reuse), runtime.autocast(plan.mixed_precision):
            pair = plan.task.pair(state.call_generator, part)
        more = number + 1 < plan.accumulate
        with runtime.exact(bool(due)), unsynchronised(state.shared_discriminator, more):
            judged = with_pseudo(state, plan.augmentation, detached(pair), draws)
            judged = with_earlier(state, plan.fake_buffer, judged, draws, runtime.team)
            terms = discriminator_terms(state, plan, judged, due, runtime, draws)
            losses.append(weighted_sum(terms, weights_now(state, plan, due)) / plan.accumulate)
            losses[-1].backward()
        add_terms(total_of_terms, "discriminator", terms, plan.accumulate)
    losses += regularise(state, plan, "discriminator", due, total_of_terms, runtime)
    losses, total_of_terms = averaged(losses, total_of_terms, runtime)
    check_turn(state, "discriminator", drawn, losses, total_of_terms, runtime.team)
    state.discriminator_optimiser.step()
    state.discriminator_optimiser.zero_grad()
    with torch.no_grad():
        for constraint in plan.objective.constraints:
            constraint(state.discriminator)
    return ((drawn, pair) if reuse and pair is not None else None), total_of_terms


def discriminator_terms(
    state: State,
    plan: Plan,
    pair: Pair,
    due: Mapping[str, WeightedPenalty],
    runtime: Runtime,
    draws: Draws,
) -> Terms:
    """The adversarial term, each penalty that is due, the task's own. A pass with penalties is float32 throughout."""
    judging = {name: item.penalty for name, item in due.items() if isinstance(item.penalty, Penalty)}
    twice = any(penalty.double_backward for penalty in judging.values())
    if twice:
        pair = replace(pair, real=pair.real.detach().requires_grad_(), fake=pair.fake.requires_grad_())
    network = state.shared_discriminator if twice else state.call_discriminator
    assert network is not None and plan.objective.loss is not None
    change = changed(state, plan.augmentation, pair.real, draws)
    judge = make_judge(network, pair, change)
    with runtime.autocast(plan.mixed_precision and not judging):
        real, fake = verdicts(network, pair, change, joint=plan.joint_verdicts and not judging)
    adapt(state, plan, real, fake, runtime.team)
    terms = {"adversarial": over_heads(plan.objective.loss.discriminator, real, fake)}
    for name, penalty in judging.items():
        terms[name] = penalty(judge, pair, real, fake, draws)
    return terms | plan.task.discriminator_terms(pair, real, fake)


def generator_turn(
    state: State,
    plan: Plan,
    batch: Batch,
    made: Made | None,
    due: Mapping[str, WeightedPenalty],
    runtime: Runtime,
    draws: Draws,
) -> Terms:
    """One update of the generator, against the discriminator as it is now, whose weights are frozen meanwhile."""
    total_of_terms: Terms = {}
    losses = []
    with frozen(state.discriminator):
        parts = [made[0]] if made is not None else split(plan.task.draw(batch, draws), plan.accumulate)
        for number, part in enumerate(parts):
            more = number + 1 < len(parts)
            exact = bool(due) or plan.unrolled_steps > 0
            with runtime.exact(exact), unsynchronised(state.shared_generator, more):
                with runtime.autocast(plan.mixed_precision):
                    pair = plan.task.pair(state.call_generator, part) if made is None else made[1]
                terms = generator_terms(state, plan, part, pair, due, runtime, draws)
                losses.append(weighted_sum(terms, weights_now(state, plan, due)) / plan.accumulate)
                losses[-1].backward()
            add_terms(total_of_terms, "generator", terms, plan.accumulate)
    losses += regularise(state, plan, "generator", due, total_of_terms, runtime)
    losses, total_of_terms = averaged(losses, total_of_terms, runtime)
    check_turn(state, "generator", batch, losses, total_of_terms, runtime.team)
    state.generator_optimiser.step()
    state.generator_optimiser.zero_grad()
    return total_of_terms


def generator_terms(
    state: State,
    plan: Plan,
    batch: Batch,
    pair: Pair,
    due: Mapping[str, WeightedPenalty],
    runtime: Runtime,
    draws: Draws,
) -> Terms:
    """The adversarial term, each penalty that is due, the task's own; real items are judged only where one asks."""
    penalties = {name: item.penalty for name, item in due.items() if isinstance(item.penalty, GeneratorPenalty)}
    network = None if state.pretrains(plan.pretraining) else state.call_frozen
    loss, real, fake = plan.objective.loss, None, Verdict(())
    ahead = plan.unrolled_steps > 0
    if ahead:  # in float32, as the discriminator will be
        pair = replace(pair, fake=pair.fake.float())
    terms: Terms = {}
    with runtime.autocast(plan.mixed_precision and not ahead):
        if network is not None and loss is not None:
            change = changed(state, plan.augmentation, pair.fake, draws)
            network = looked_ahead(state, plan, pair, change, runtime) if ahead else network
            asked = [loss.generator_sees_real, plan.task.generator_sees_real]
            if any([*asked, *(penalty.sees_real for penalty in penalties.values())]):
                with torch.set_grad_enabled(ahead):  # the fakes decide what the discriminator will say of real items
                    real = in_float32(network(change(pair.real), pair.condition))
            fake = in_float32(network(change(pair.fake), pair.condition))
            heads = real.logits if real is not None else (None,) * len(fake.logits)
            share = state.now(plan.top_share)
            losses = [loss.generator(*best(r, f, share)) for r, f in zip(heads, fake.logits, strict=True)]
            terms = {"adversarial": torch.stack(losses).mean()}
        terms |= plan.task.generator_terms(pair, real, fake)
    for name, penalty in penalties.items():
        terms[name] = penalty(state.shared_generator, batch, pair, real, fake, draws)
    return terms


def best(real: Tensor | None, fake: Tensor, share: float) -> tuple[Tensor | None, Tensor]:
    """The share of the pairs whose fakes have the highest logits, at least one. Sinha et al. 2020, arXiv:2002.06224.

    Micro-batches, and processes, each keep that share of their own.
    """
    if share >= 1:
        return real, fake
    count = max(1, math.ceil(share * len(fake) - 1e-9))
    kept = fake.detach().flatten(1).mean(1).topk(count).indices if fake.ndim > 1 else fake.detach().topk(count).indices
    return None if real is None else real[kept], fake[kept]


def regularise(
    state: State, plan: Plan, turn: str, due: Mapping[str, WeightedPenalty], total_of_terms: Terms, runtime: Runtime
) -> list[Tensor]:
    """Add the penalties that look at nothing but the weights, once an update, and their gradients; return their loss.

    They are the same in all processes. Added by hand, since they also reach weights that a network has not grown into,
    whose gradients DistributedDataParallel does not expect.
    """
    network = state.networks[turn]
    assert network is not None
    with runtime.exact():
        terms = {name: item.penalty(network) for name, item in due.items() if isinstance(item.penalty, WeightPenalty)}
        if not terms:
            return []
        loss = weighted_sum(terms, weights_now(state, plan, due))
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
    add_terms(total_of_terms, turn, terms, 1)
    return [loss.detach()]


def verdicts(network: Callable[..., Verdict], pair: Pair, change: Change, joint: bool) -> tuple[Verdict, Verdict]:
    """The verdicts on real and fake, in one pass where `joint`."""
    given = change(pair.real), change(pair.fake)
    if not joint:
        return in_float32(network(given[0], pair.condition)), in_float32(network(given[1], pair.condition))
    condition = torch.cat([pair.condition, pair.condition]) if pair.condition is not None else None
    both = in_float32(network(torch.cat(given), condition))
    halves = [
        Verdict(
            tuple(logits.chunk(2)[half] for logits in both.logits),
            tuple(features.chunk(2)[half] for features in both.features),
            both.classes.chunk(2)[half] if both.classes is not None else None,
        )
        for half in (0, 1)
    ]
    return halves[0], halves[1]


def in_float32(verdict: Verdict) -> Verdict:
    """Logits in float32: the losses are differences of them, and bfloat16 keeps only eight bits."""
    classes = verdict.classes.float() if verdict.classes is not None else None
    return Verdict(tuple(logits.float() for logits in verdict.logits), verdict.features, classes)


def make_judge(network: Callable[..., Verdict], pair: Pair, change: Change) -> Judge:
    """The network with condition and augmentation filled in, for penalties, which differentiate to the raw data."""
    return lambda items: in_float32(network(change(items), pair.condition))


def over_heads(loss: Callable[[Tensor, Tensor], Tensor], real: Verdict, fake: Verdict) -> Tensor:
    """The mean over heads of a loss of real and fake logits."""
    return torch.stack([loss(r, f) for r, f in zip(real.logits, fake.logits, strict=True)]).mean()


def due_penalties(penalties: Mapping[str, WeightedPenalty], turn_number: int) -> dict[str, WeightedPenalty]:
    """Those that this turn applies."""
    return {name: item for name, item in penalties.items() if turn_number % item.every_steps == 0}


def weights_now(state: State, plan: Plan, due: Mapping[str, WeightedPenalty]) -> dict[str, float]:
    """The present weight of each term of a turn."""
    own = {name: state.now(weight) for name, weight in plan.objective.weights.items()}
    return {"adversarial": 1.0} | own | {n: state.now(item.weight) * item.every_steps for n, item in due.items()}


def weighted_sum(terms: Terms, weights: Mapping[str, float]) -> Tensor:
    """Σ weight · term. Raises KeyError for a term without a weight."""
    for name in terms:
        if name not in weights:
            raise KeyError(f"no weight for the term {name!r}; there are weights for {sorted(weights)}")
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def add_terms(total: Terms, turn: str, terms: Terms, parts: int) -> None:
    """Add the terms of one micro-batch to their mean over all."""
    for name, term in terms.items():
        key = f"{turn}/{name}"
        share = term.detach() / parts
        total[key] = total[key] + share if key in total else share


def averaged(losses: list[Tensor], terms: Terms, runtime: Runtime) -> tuple[list[Tensor], Terms]:
    """Losses and terms of the joined batch: the same on all processes, which then judge alike what is not finite."""
    found = runtime.team.mean([*losses, *terms.values()])
    return found[: len(losses)], dict(zip(terms, found[len(losses) :], strict=True))


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch in equal parts, in order. Raises ValueError where it cannot be cut so: the parts weigh the same."""
    if parts == 1:
        return [batch]
    for name, tensor in batch.items():
        if len(tensor) % parts:
            raise ValueError(f"{len(tensor)} items of {name!r} cannot be cut into {parts} equal parts")
    chunks = {name: tensor.chunk(parts) for name, tensor in batch.items()}
    return [{name: chunks[name][part] for name in batch} for part in range(parts)]


def detached(pair: Pair) -> Pair:
    extra = {name: value.detach() for name, value in pair.extra.items()}
    return Pair(pair.real, pair.fake.detach().float(), pair.condition, extra)


@contextlib.contextmanager
def frozen(network: nn.Module | None) -> Iterator[None]:
    """No gradients to the network's weights: a textbook loop computes them in this turn and throws them away."""
    weights = [w for w in network.parameters() if w.requires_grad] if network is not None else []
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def grow(state: State) -> None:
    """Tell the networks that depend on it how far the training is."""
    for network in (state.generator, state.discriminator, state.average):
        # Also within another network, as remedies put it.
        for module in network.modules() if network is not None else ():
            if isinstance(module, Grows):
                module.grow(state.items_seen, state.total_items)


def set_rates(state: State, plan: Plan) -> None:
    """Give both optimisers the present values of their schedules."""
    for settings, optimiser in (
        (plan.generator, state.generator_optimiser),
        (plan.discriminator, state.discriminator_optimiser),
    ):
        if optimiser is not None:
            for group in optimiser.param_groups:
                group["lr"] = state.rate_factor * state.now(settings.learning_rate)
                if "betas" in group:
                    group["betas"] = (float(settings.beta1), float(state.now(settings.beta2)))


@torch.no_grad()
def update_average(state: State, plan: Plan) -> None:
    """Move the average towards the generator by 1 - ½^(items / half-life): the same whatever the batch size.

    The half-life is never over a fifth of the items seen, so that a short training is not an average of its start.
    Floating buffers (batch statistics) are averaged like weights, so that they belong to the averaged weights; integer
    ones are copied.
    """
    step_items = plan.batch_items * plan.discriminator_steps
    halflife = max(min(state.now(plan.ema_halflife_items), 0.2 * (state.items_seen + step_items)), 1e-9)
    share = 1 - 0.5 ** (step_items / halflife)
    averages, values = [], []
    for average, value in state.averaged:
        if average.is_floating_point():
            averages.append(average)
            values.append(value)
        else:
            average.copy_(value)
    torch._foreach_lerp_(averages, values, share)  # pyright: ignore[reportPrivateImportUsage]
