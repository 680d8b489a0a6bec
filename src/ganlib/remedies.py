"""Remedies for collapse and instability: each changes what any recipe makes. Free of torch until one is applied.

From Python ``GAN(dcgan().with_remedies(packing(items=3), lecam()))``; on the command line
``ganlib fit … --recipe dcgan --remedies packing=3,lecam``, where the number is the first option. They are applied in
turn. Augmentation is no remedy: see :mod:`ganlib.core`.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ganlib.errors import UsageError
from ganlib.recipe import Make, Remedy, Setting, remedy

if TYPE_CHECKING:
    from torch import nn

    from ganlib.core import GeneratorPenalty, Penalty, Plan, WeightPenalty
    from ganlib.networks.minibatch import MinibatchDeviation, MinibatchDiscrimination


@remedy
def packing(make: Make, setting: Setting, *, items: int = 2) -> "Plan":
    """The discriminator judges several items of a class at once. Lin et al. 2018, arXiv:1712.04086

    It is the recipe's own for pictures of so many times the channels, or rows of so many times the columns.

    Args:
        items: how many; 2 to 4 in the paper.
    """
    from ganlib.networks.packing import Packed
    from ganlib.tasks.noisy import GenerateNoisy

    plan = _alone(make(setting), "packing")
    if isinstance(plan.task, GenerateNoisy):
        raise UsageError("remedy packing: this recipe judges vectors under noise, each at its own level; take gan")
    first, *rest = setting.spec.shape
    wide = make(replace(setting, spec=replace(setting.spec, shape=(first * items, *rest)))).task

    def packed(generator: "nn.Module", discriminator: "nn.Module") -> "tuple[nn.Module, nn.Module]":
        judge = wide.networks()[1]
        assert judge is not None
        return generator, Packed(judge, items)

    return _with_networks(plan, packed)


@remedy
def minibatch(make: Make, setting: Setting, *, kernels: int = 100, kernel_width: int = 5) -> "Plan":
    """The discriminator sees how like each item is to the others. Salimans et al. 2016, arXiv:1606.03498

    Args:
        kernels: in how many ways.
        kernel_width: by how many numbers each.
    """
    from ganlib.networks.minibatch import MinibatchDiscrimination

    return _beside_features(
        _alone(make(setting), "minibatch"),
        setting,
        lambda width: MinibatchDiscrimination(width, kernels=kernels, kernel_width=kernel_width),
    )


@remedy
def deviation(make: Make, setting: Setting, *, items: int = 4) -> "Plan":
    """The discriminator sees the standard deviation within a group. Karras et al. 2018, arXiv:1710.10196

    Args:
        items: in a group.
    """
    from ganlib.networks.minibatch import MinibatchDeviation

    return _beside_features(_alone(make(setting), "deviation"), setting, lambda width: MinibatchDeviation(items))


@remedy
def virtual_norm(make: Make, setting: Setting, *, items: int = 64) -> "Plan":
    """The generator normalises by a batch that never changes. Salimans et al. 2016, arXiv:1606.03498

    In place of its batch normalisations; every pass makes the reference's items too.

    Args:
        items: in the reference batch.
    """
    import torch

    from ganlib.core import Draws
    from ganlib.networks.virtual_norm import VirtuallyNormalised

    plan = make(setting)
    if not plan.task.draws:
        raise UsageError("remedy virtual_norm is for generators of a latent; this one is given none")

    def normalised(generator: "nn.Module", discriminator: "nn.Module") -> "tuple[nn.Module, nn.Module]":
        # A generator of its own from torch's, which the seed of the training has set.
        draws = Draws(torch.Generator().manual_seed(int(torch.randint(2**62, ()))))
        reference = plan.task.latent(items, draws)
        return VirtuallyNormalised(generator, reference, num_classes=setting.num_classes), discriminator

    return _with_networks(plan, normalised)


@remedy
def lecam(make: Make, setting: Setting, *, weight: float = 0.3, halflife_items: float = 4400.0) -> "Plan":
    """Logits are held near their opposites' moving means. Tseng et al. 2021, arXiv:2104.03310

    Args:
        weight: of the penalty; 0.3 for BigGAN in the paper.
        halflife_items: of the moving means.
    """
    from ganlib.penalties.memory import LeCam

    return _with_penalties(make(setting), {"lecam": (LeCam(halflife_items), weight)})


@remedy
def consistency(make: Make, setting: Setting, *, weight: float = 10.0, pixels: int = 4, fakes: bool = True) -> "Plan":
    """Shifted and mirrored pictures get the same verdict (bCR). Zhao et al. 2020, arXiv:2002.04724

    Args:
        weight: of the penalty.
        pixels: the largest shift.
        fakes: of real and fake items; False is CR, of real ones alone.
    """
    from ganlib.penalties.consistency import Consistency, ShiftAndFlip

    if setting.spec.kind != "image":
        raise UsageError(f"remedy consistency shifts pictures, and these data are {setting.spec.kind}s; leave it out")
    plan = _alone(make(setting), "consistency")
    return _with_penalties(plan, {"consistency": (Consistency(ShiftAndFlip(pixels), fakes), weight)})


@remedy
def latent_consistency(
    make: Make, setting: Setting, *, weight: float = 5.0, generator_weight: float = 0.5, sigma: float = 0.03
) -> "Plan":
    """Near latents: different items, the same verdict (zCR). Zhao et al. 2020, arXiv:2002.04724

    Args:
        weight: of the discriminator's penalty.
        generator_weight: of what the generator gains by items that differ.
        sigma: how far apart the latents are, in standard deviations.
    """
    from ganlib.penalties.consistency import LatentConsistency, LatentVariety
    from ganlib.tasks.wrapped import Disturbed

    plan = make(setting)
    plan = _with_penalties(
        replace(plan, task=Disturbed(plan.task, sigma)), {"latent_consistency": (LatentConsistency(), weight)}
    )
    return _with_generator_penalties(plan, {"latent_variety": (LatentVariety(), generator_weight)})


@remedy
def matching(make: Make, setting: Setting, *, weight: float = 1.0) -> "Plan":
    """The generator also aims at the mean features of real items. Salimans et al. 2016, arXiv:1606.03498

    Args:
        weight: beside the adversarial term.
    """
    from ganlib.penalties.matching import FeatureMatching

    return _with_generator_penalties(make(setting), {"feature_matching": (FeatureMatching(), weight)})


@remedy
def history(make: Make, setting: Setting, *, weight: float = 1e-3) -> "Plan":
    """Both networks are held near the mean of their past. Salimans et al. 2016, arXiv:1606.03498

    Args:
        weight: of the squared distance; the paper names none.
    """
    import torch

    from ganlib.penalties.memory import HistoricalAverage

    plan = make(setting)
    with torch.random.fork_rng(devices=[]):  # for their shapes alone
        generator, discriminator = plan.task.networks()
    plan = _with_generator_penalties(plan, {"history": (HistoricalAverage(generator), weight)})
    if discriminator is None:
        return plan
    return _with_penalties(plan, {"history": (HistoricalAverage(discriminator), weight)})


@remedy
def top_k(make: Make, setting: Setting, *, share: float = 0.5) -> "Plan":
    """The generator learns from its best-judged items only. Sinha et al. 2020, arXiv:2002.06224

    From all of them at the start to `share` of them half-way, and on; the paper takes 1 % less in each epoch.

    Args:
        share: that is left.
    """
    from ganlib.core import Schedule

    if not 0 < share <= 1:
        raise UsageError(f"share={share} of remedy top_k: accepted is over 0 to 1")
    return replace(_adversarial(make(setting)), top_share=Schedule(1.0, share, until=0.5, shape="linear"))


@remedy
def unrolled(make: Make, setting: Setting, *, steps: int = 5) -> "Plan":
    """The generator faces the discriminator some updates ahead. Metz et al. 2017, arXiv:1611.02163

    Args:
        steps: virtual updates; each costs about four passes of the discriminator.
    """
    return replace(_adversarial(make(setting)), unrolled_steps=steps)


@remedy
def smoothing(make: Make, setting: Setting, *, target: float = 0.9) -> "Plan":
    """Real items count as real by less than 1. Salimans et al. 2016, arXiv:1606.03498

    Args:
        target: in place of 1; fakes stay at 0.
    """
    from ganlib.losses import LeastSquares, Minimax, NonSaturating

    plan = _adversarial(make(setting))
    if not isinstance(plan.objective.loss, Minimax | NonSaturating | LeastSquares):
        raise UsageError(
            f"remedy smoothing: the loss {type(plan.objective.loss).__name__} has no target to smooth; leave it out"
        )
    loss = replace(plan.objective.loss, real_target=target)
    return replace(plan, objective=replace(plan.objective, loss=loss))


@remedy
def two_rates(make: Make, setting: Setting, *, ratio: float = 4.0) -> "Plan":
    """The generator learns slower than the discriminator. Heusel et al. 2017, arXiv:1706.08500

    Args:
        ratio: the discriminator's rate, which stays, over the generator's.
    """
    if not ratio > 0:
        raise UsageError(f"ratio={ratio} of remedy two_rates: accepted is over 0")
    plan = make(setting)
    rate = plan.discriminator.learning_rate
    slower = replace(rate, start=rate.start / ratio, end=rate.end / ratio)
    return replace(plan, generator=replace(plan.generator, learning_rate=slower))


@remedy
def sgd(make: Make, setting: Setting, *, learning_rate: float = 0.01, momentum: float = 0.0) -> "Plan":
    """The discriminator learns by plain gradient steps, the generator as it did: the advice of many articles.

    Args:
        learning_rate: of the discriminator.
        momentum: of the discriminator.
    """
    from ganlib.core import OptimiserSettings, constant

    settings = OptimiserSettings(constant(learning_rate), kind="sgd", beta1=momentum)
    return replace(make(setting), discriminator=settings)


@remedy
def clip(make: Make, setting: Setting, *, bound: float = 0.01) -> "Plan":
    """The discriminator's weights stay within a bound. Arjovsky et al. 2017, arXiv:1701.07875

    Args:
        bound: the paper's is 0.01, with its loss.
    """
    from ganlib.penalties import ClipWeights

    plan = make(setting)
    constraints = (*plan.objective.constraints, ClipWeights(bound))
    return replace(plan, objective=replace(plan.objective, constraints=constraints))


ALL: tuple[Callable[..., Remedy], ...] = (
    *(packing, minibatch, deviation, virtual_norm),
    *(lecam, consistency, latent_consistency, matching, history),
    *(top_k, unrolled, smoothing, two_rates, sgd, clip),
)
"""All remedies, in the order in which the documentation names them."""


def names() -> list[str]:
    """All remedies by name."""
    return [function.__name__ for function in ALL]


def find(name: str) -> Callable[..., Remedy]:
    """The remedy of that name. Raises :class:`UsageError` with the nearest name where there is none."""
    for function in ALL:
        if function.__name__ == name:
            return function
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UsageError(f"no remedy named {name!r}{hint} There are: {', '.join(names())}")


def parse(text: str) -> tuple[Remedy, ...]:
    """``packing=3,lecam``: remedies by name, with their first option where a number is given."""
    found = []
    for part in text.split(","):
        name, given, number = (word.strip() for word in part.partition("="))
        function = find(name)
        if not given:
            found.append(function())
            continue
        option = next(iter(inspect.signature(function).parameters.values()))
        kind = int if isinstance(option.default, int) else float
        try:
            value = kind(number)
        except ValueError:
            accepted = "a whole number" if kind is int else "a number"
            raise UsageError(f"remedy {part.strip()}: accepted after = is {accepted}, the {option.name}") from None
        found.append(function(**{option.name: value}))
    return tuple(found)


def _alone(plan: "Plan", name: str) -> "Plan":
    from ganlib.tasks.translate import Translate

    if isinstance(plan.task, Translate):
        raise UsageError(f"remedy {name}: this recipe judges a picture beside the given one, which stays; leave it out")
    return plan


def _adversarial(plan: "Plan") -> "Plan":
    if plan.objective.loss is None:
        raise UsageError("this recipe has no discriminator, and the remedy is for one; leave it out")
    return plan


def _with_networks(plan: "Plan", change: "Callable[[nn.Module, nn.Module], tuple[nn.Module, nn.Module]]") -> "Plan":
    """Other networks; in them items of a batch may depend on one another, so real and fake are judged apart."""
    from ganlib.penalties.memory import HistoricalAverage
    from ganlib.tasks.stages import GenerateInStages
    from ganlib.tasks.wrapped import WithNetworks

    held = (*plan.objective.penalties.values(), *plan.objective.generator_penalties.values())
    if any(isinstance(item.penalty, HistoricalAverage) for item in held):
        raise UsageError("remedy history remembers the weights of networks that a remedy after it changes; put it last")
    if isinstance(plan.task, GenerateInStages):
        raise UsageError(
            "packing, minibatch, deviation and virtual_norm are for one picture, and cascade makes several"
        )
    return replace(_adversarial(plan), task=WithNetworks(plan.task, change), joint_verdicts=False)


def _beside_features(
    plan: "Plan", setting: Setting, make_layer: "Callable[[int], MinibatchDiscrimination | MinibatchDeviation]"
) -> "Plan":
    from ganlib.networks.minibatch import BesideFeatures, num_features
    from ganlib.tasks.encode import Resemble

    if isinstance(plan.task, Resemble):
        raise UsageError("minibatch and deviation look at features by which recipe vae_gan compares; take packing")

    def beside(generator: "nn.Module", discriminator: "nn.Module") -> "tuple[nn.Module, nn.Module]":
        width = num_features(discriminator, setting.spec.shape, setting.num_classes)
        return generator, BesideFeatures(discriminator, make_layer(width))

    return _with_networks(plan, beside)


def _with_penalties(plan: "Plan", added: "dict[str, tuple[Penalty | WeightPenalty, float]]") -> "Plan":
    from ganlib.core import WeightedPenalty, constant

    more = {name: WeightedPenalty(penalty, constant(weight)) for name, (penalty, weight) in added.items()}
    objective = _adversarial(plan).objective
    return replace(plan, objective=replace(objective, penalties={**objective.penalties, **more}))


def _with_generator_penalties(
    plan: "Plan", added: "dict[str, tuple[GeneratorPenalty | WeightPenalty, float]]"
) -> "Plan":
    from ganlib.core import WeightedPenalty, constant

    more = {name: WeightedPenalty(penalty, constant(weight)) for name, (penalty, weight) in added.items()}
    objective = plan.objective
    penalties = {**objective.generator_penalties, **more}
    return replace(plan, objective=replace(objective, generator_penalties=penalties))
