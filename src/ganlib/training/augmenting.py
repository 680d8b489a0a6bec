"""What the discriminator sees changed: the change of a turn, and how its probability follows the verdicts."""

from dataclasses import replace

import torch
from torch import Tensor

from ganlib.core import Augmentation, Change, Draws, Pair, Plan, Verdict
from ganlib.training.state import State
from ganlib.training.team import Team

SIGN_ITEMS = 256
"""The mean sign is one over about so many items: four batches of 64 in the paper."""

RISE_PER_COLLAPSE = 0.2


def least_probability(state: State, augmentation: Augmentation) -> float:
    """What the probability does not fall below: more after each return from a collapse or an overfitting of the judge.

    Not from the papers; the same randomness would lead to the same end, and so may the same ease of judging.
    """
    return min(RISE_PER_COLLAPSE * state.collapses, augmentation.most)


def set_probability(state: State, augmentation: Augmentation | None) -> None:
    """Note the probability of this step, on the device; within the step :func:`adapt` alone moves it."""
    state.probability = None if augmentation is None else probability_now(state, augmentation)


def probability_now(state: State, augmentation: Augmentation) -> Tensor:
    """The present probability, on the device."""
    least = least_probability(state, augmentation)
    if augmentation.target is not None:
        return state.augment["probability"].clamp(min=least)
    return torch.tensor(max(state.now(augmentation.probability), least), device=state.device)


def changed(state: State, augmentation: Augmentation | None, items: Tensor, draws: Draws) -> Change:
    """The change of a turn, one for the real and the fake item of a pair, and for what penalties make of them.

    Items of a pair that are changed alike differ by what the networks make of them alone, and a finite difference is of
    the same function.
    """
    if augmentation is None or augmentation.augment is None:
        return lambda items: items
    assert state.probability is not None
    return augmentation.augment.draw(items, state.probability, draws)


def with_pseudo(state: State, augmentation: Augmentation | None, pair: Pair, draws: Draws) -> Pair:
    """The pair with fakes in place of some real items. Jiang et al. 2021, arXiv:2111.06849.

    Where there is a condition it is the fake of the same pair, which alone is of that condition, else that of the pair
    half a batch away, which is the same one where several processes have an even number of rows each.
    """
    if augmentation is None or not augmentation.pseudo:
        return pair
    assert state.probability is not None
    replaced = draws.uniform(len(pair.real), *[1] * (pair.real.ndim - 1)) < state.probability
    fakes = pair.fake if pair.condition is not None else pair.fake.roll(len(pair.fake) // 2, 0)
    return replace(pair, real=torch.where(replaced, fakes.to(pair.real.dtype), pair.real))


@torch.no_grad()
def adapt(state: State, plan: Plan, real: Verdict, fake: Verdict, team: Team) -> None:
    """Move the probability towards where the mean sign of the real logits is the target.

    Karras et al. 2020, arXiv:2006.06676, section 3: the sign tells overfitting, as real logits drift away from zero.
    """
    augmentation, loss = plan.augmentation, plan.objective.loss
    if augmentation is None or augmentation.target is None or loss is None:
        return
    pairs = zip(real.logits, fake.logits, strict=True)
    signs = [torch.sign(r - f if loss.generator_sees_real else r).mean() for r, f in pairs]
    (sign,) = team.mean([torch.stack(signs).mean()])
    items = plan.batch_items / plan.accumulate
    state.augment["sign"].lerp_(sign, min(1.0, items / SIGN_ITEMS))
    direction = torch.sign(state.augment["sign"] - augmentation.target)
    probability = state.augment["probability"] + direction * items / augmentation.rise_items
    state.probability = probability.clamp(least_probability(state, augmentation), augmentation.most)
    state.augment["probability"] = state.probability
