"""The default: relativistic pairing with zero-centred penalties on real and fake."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from ganlib.recipe import Setting, recipe
from ganlib.recipes._shared import AugmentKind, augmentation, chosen_augment

if TYPE_CHECKING:
    from ganlib.core import Objective, OptimiserSettings, Plan, Task


@recipe
def r3(
    setting: Setting,
    *,
    network: Literal["auto", "mlp", "compact", "residual"] = "auto",
    width: int | None = None,
    discriminator_width: int | None = None,
    latent: int | None = None,
    batch_items: int | None = None,
    learning_rate: float | None = None,
    generator_learning_rate: float | None = None,
    gamma: float | None = None,
    penalty_every_steps: int | None = None,
    penalty_sigma: float | None = None,
    ema_halflife_items: float | None = None,
    augment: AugmentKind = "auto",
) -> "Plan":
    """Relativistic pairing loss with R1 and R2, the default. Huang et al. 2024, arXiv:2501.05441

    What is left at None is chosen from data, device and time. ``residual`` networks are the paper's (no normalisation,
    ConvNeXt-like blocks), for hours on a GPU; ``compact`` ones, the generator batch normalised, learn faster in minutes
    on a processor; ``mlp`` is for tiny pictures and for vectors, judged under noise (:mod:`ganlib.tasks.noisy`).

    γ, the weight of the penalties, is `gamma` · numbers of an item / 3072: the squared gradient of a function of the
    picture as a whole falls as the number of its pixels rises: one `gamma` serves every size (of vectors it is γ).

    Args:
        network: the family of networks.
        width: channels of the networks' widest (residual) or finest (compact) stage, or units of a layer (mlp).
        discriminator_width: the discriminator's own, of compact networks; by default it grows with `width`.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam at the start; it falls to a hundredth of that by half a cosine.
        generator_learning_rate: the generator's own, where the discriminator needs a faster pace to keep up.
        gamma: weight of R1 and R2 at 32 x 32 x 3; by default a tenth of the usual with ``augment="diffaugment"``.
        penalty_every_steps: the penalties are applied in every so many steps, with as many times the weight.
        penalty_sigma: the step of the finite-difference penalty; None for the exact one.
        ema_halflife_items: half-life of the generator's moving average.
        augment: what the discriminator sees changed; ``auto`` is ``diffaugment`` for up to 3,000 pictures of 24 x 24
            or more in trainings of 100,000 items or more, and ``none`` otherwise.
    """
    from ganlib.core import Plan, constant

    family = _network_for(setting) if network == "auto" else network
    chosen = _defaults(setting, family)
    rate = _or(learning_rate, chosen.learning_rate * _share_of_rate(setting, chosen))
    generator_rate = _or(generator_learning_rate, rate * chosen.generator_rate_share)
    widths = _widths(width, discriminator_width, chosen, family)
    to_come = min(_items_to_come(setting), chosen.items)
    augment = chosen_augment(augment, setting, to_come)
    calmed = AUGMENTED_GAMMA_SHARE if augment == "diffaugment" else 1.0
    weight = _or(gamma, chosen.gamma * calmed) * _size_factor(setting)
    return Plan(
        _task(setting, family, widths, _or(latent, chosen.latent)),
        _objective(weight, _or(penalty_every_steps, chosen.penalty_every_steps), penalty_sigma),
        generator=_adam(generator_rate),
        discriminator=_adam(rate),
        batch_items=_or(batch_items, min(chosen.batch_items, max(2, setting.num_items))),
        ema_halflife_items=constant(_or(ema_halflife_items, chosen.ema_halflife_items)),
        items=chosen.items,
        mixed_precision=family != "mlp",
        joint_verdicts=True,
        augmentation=augmentation(augment, setting, to_come, recipe="r3"),
        notes={"network": family, "width": widths[0], "gamma": weight}
        | ({} if augment == "none" else {"augment": augment}),
    )


Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Defaults:
    """What a family of networks learns best with; found by the searches in benchmarks/RESULTS.md."""

    width: int
    batch_items: int
    learning_rate: float
    gamma: float
    penalty_every_steps: int
    ema_halflife_items: float
    items: int
    latent: int = 64
    generator_rate_share: float = 1.0  # the generator's learning rate over the discriminator's
    discriminator_width: int | None = None  # where it is not the generator's
    full_rate_items: float = math.inf  # for a longer training the rates fall, by the root of how much longer it is


PIXELS_PER_SECOND = 550_000  # that one processor trains compact networks on, roughly
BRIEF_ITEMS, COLOUR_BRIEF_ITEMS = 150_000, 60_000
MLP = Defaults(256, 64, 2e-3, 24.0, 8, 10_000, 2_000_000)
VECTORS = Defaults(64, 512, 3e-3, 0.01, 4, 40_000, 5_000_000, latent=28, generator_rate_share=0.5)
RESIDUAL = Defaults(256, 256, 2e-4, 0.1, 1, 500_000, 20_000_000)
# Under changes the discriminator has less to go by; with the whole penalty it fell silent on 200 faces.
AUGMENTED_GAMMA_SHARE = 0.1
# The rates of a brief training would leave the discriminator of a longer one silent half-way.
GREY_BRIEF = Defaults(24, 32, 4e-3, 2.0, 8, 10_000, 1_000_000, generator_rate_share=0.5, discriminator_width=32)
GREY = Defaults(32, 32, 1e-3, 2.0, 8, 10_000, 1_000_000, generator_rate_share=0.5, full_rate_items=450_000)
COLOUR_BRIEF = Defaults(16, 16, 2e-3, 1.0, 8, 10_000, 1_000_000, generator_rate_share=0.5, discriminator_width=32)
# In colour, at one rate for both, the generator outruns the discriminator, which then falls silent.
COLOUR = Defaults(32, 32, 2e-3, 0.1, 8, 10_000, 1_000_000, generator_rate_share=0.25)
# A GPU has room for wider networks and larger batches; not searched yet.
GREY_ON_GPU = Defaults(64, 128, 2e-3, 2.0, 8, 20_000, 10_000_000, discriminator_width=48)
COLOUR_ON_GPU = Defaults(64, 128, 2e-3, 0.1, 8, 20_000, 10_000_000, generator_rate_share=0.25)


def _defaults(setting: Setting, family: str) -> Defaults:
    if setting.spec.kind == "vector":
        return VECTORS
    if family != "compact":
        return RESIDUAL if family == "residual" else MLP
    colour = setting.spec.shape[0] >= 3
    if setting.device == "cuda":
        return COLOUR_ON_GPU if colour else GREY_ON_GPU
    if colour:
        return COLOUR_BRIEF if _items_to_come(setting) <= COLOUR_BRIEF_ITEMS else COLOUR
    return GREY_BRIEF if _items_to_come(setting) <= BRIEF_ITEMS else GREY


def _items_to_come(setting: Setting) -> float:
    """How many items the budget is good for; endless where there is none."""
    if setting.budget_seconds is not None:
        return setting.budget_seconds * PIXELS_PER_SECOND / math.prod(setting.spec.shape)
    return setting.budget_items or math.inf


def _share_of_rate(setting: Setting, chosen: Defaults) -> float:
    """What a long training takes of the learning rates."""
    to_come = _items_to_come(setting)
    items = to_come if math.isfinite(to_come) else chosen.items
    return min(1.0, math.sqrt(chosen.full_rate_items / items))


def _objective(gamma: float, every_steps: int, sigma: float | None) -> "Objective":
    from ganlib.core import Objective, WeightedPenalty, constant
    from ganlib.losses import RelativisticPairing
    from ganlib.penalties import R1, R2

    penalties = {"r1": R1(sigma), "r2": R2(sigma)}
    weighted = {name: WeightedPenalty(item, constant(gamma), every_steps) for name, item in penalties.items()}
    return Objective(RelativisticPairing(), weighted)


def _widths(width: int | None, discriminator_width: int | None, chosen: Defaults, family: str) -> tuple[int, int]:
    """Of the generator and the discriminator."""
    if discriminator_width is not None and family != "compact":
        from ganlib.errors import UsageError

        raise UsageError(f"discriminator_width is an option of compact networks, not of {family} ones; leave it out")
    own = _or(width, chosen.width)
    return own, _or(discriminator_width, round(own * (chosen.discriminator_width or chosen.width) / chosen.width))


def _adam(rate: float) -> "OptimiserSettings":
    from ganlib.core import OptimiserSettings, Schedule, constant

    return OptimiserSettings(Schedule(rate, rate / 100), beta1=0.0, beta2=constant(0.99))


def _or(given: Number | None, otherwise: Number) -> Number:
    return otherwise if given is None else given


def _size_factor(setting: Setting) -> float:
    return math.prod(setting.spec.shape) / 3072 if setting.spec.kind == "image" else 1.0


def _network_for(setting: Setting) -> Literal["mlp", "compact", "residual"]:
    """Vectors and tiny pictures need no convolutions; less than an hour on a GPU is too short for residual networks."""
    if setting.spec.kind == "vector" or max(setting.spec.shape[1:]) <= 12:
        return "mlp"
    enough = (setting.budget_seconds or math.inf) >= 3600 and (setting.budget_items or math.inf) >= 10_000_000
    return "residual" if setting.device == "cuda" and enough else "compact"


def _task(setting: Setting, network: str, both_widths: tuple[int, int], latent: int) -> "Task":
    from ganlib.errors import UsageError
    from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
    from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
    from ganlib.networks.residual import ResidualDiscriminator, ResidualGenerator
    from ganlib.networks.vectors import MixtureGenerator, NoisyDiscriminator
    from ganlib.tasks.generate import Generate
    from ganlib.tasks.noisy import GenerateNoisy

    shape, classes, (width, judge_width) = setting.spec.shape, setting.num_classes, both_widths
    if network != "mlp" and setting.spec.kind != "image":
        raise UsageError(f"recipe r3 has no {network} networks for a {setting.spec.kind}; leave network out, or mlp")
    match network:
        case "mlp" if setting.spec.kind == "vector":
            widths = (width,) * 3
            return GenerateNoisy(
                lambda: MixtureGenerator(shape, latent=latent, widths=widths, num_classes=classes),
                lambda: NoisyDiscriminator(shape, widths=widths, num_classes=classes),
                latent,
            )
        case "mlp":
            widths = (width,) * 3
            return Generate(
                lambda: MLPGenerator(shape, latent=latent, widths=widths, num_classes=classes, batch_norm=True),
                lambda: MLPDiscriminator(shape, widths=widths, num_classes=classes),
                latent,
            )
        case "compact":
            return Generate(
                lambda: CompactGenerator(shape, latent=latent, width=width, num_classes=classes),
                lambda: CompactDiscriminator(shape, width=judge_width, num_classes=classes),
                latent,
            )
        case _:
            return Generate(
                lambda: ResidualGenerator(shape, latent=latent, width=width, num_classes=classes),
                lambda: ResidualDiscriminator(shape, width=width, num_classes=classes),
                latent,
            )
