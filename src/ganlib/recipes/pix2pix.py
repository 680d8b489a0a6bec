"""Pictures into pictures, learned from pairs."""

from typing import TYPE_CHECKING, Literal

from ganlib.recipe import Setting, paired_recipe

if TYPE_CHECKING:
    from torch import nn

    from ganlib.core import Objective, Plan
    from ganlib.spec import Spec


@paired_recipe
def pix2pix(
    setting: Setting,
    *,
    degrade: Literal["none", "grey", "noise", "mask", "down4"] = "none",
    adversary: Literal["r3", "paper", "none"] = "r3",
    width: int = 32,
    batch_items: int = 32,
    learning_rate: float = 1e-3,
    content: float = 100.0,
    perceptual: float = 20.0,
    feature_matching: float = 0.0,
    gamma: float = 1.0,
    alone: float = 0.6,
) -> "Plan":
    """A picture made of a picture, learned from pairs. Isola et al. 2017, arXiv:1611.07004

    Data are pairs (:func:`ganlib.data.load_pairs`): folders A/ and B/ of equal names, A given and B wanted, pictures
    side by side, or two arrays; with `degrade` single good pictures, from which the given ones are made on the way:
    without colour, with noise, with a hole, four times smaller. ``predict`` takes pictures of any size. The generator
    is the U-Net, the discriminator the PatchGAN of the paper, as deep as the pictures allow, beside the given picture.

    `adversary="paper"` is the paper's loss (non-saturating, without a penalty, batch normalised networks and dropout);
    ``r3`` the relativistic pairing with R1 and R2, for which real and fake of one pair are natural partners, and a
    discriminator without normalisation; ``none`` leaves the difference of pixels alone, to compare with.

    Under `degrade` and without ``paper`` the U-Net adds to the given picture: it has no skip at full size, and without
    that it was still worse than the given picture itself after a minute of colouring. An adversary helps late: on
    outlines to clothes, beside a generator that the pixels had taught for a minute, its gradient was a tenth of theirs
    at `content=100` and brought features nearer; two thirds of theirs, at `content=10`, took them away. So it begins
    when most is learned (`alone`), as in super-resolution (Ledig et al. 2017, arXiv:1609.04802), and what it costs is
    not paid before. Adam's rate is five times the paper's, and a batch 32, so that the first minutes are fast.

    Args:
        degrade: what spoils single pictures: ``none`` (the data are pairs), ``grey``, ``noise``, ``mask``, ``down4``.
        adversary: the loss, and what goes with it.
        width: channels of the finest layers; the paper has 64.
        batch_items: items per step; the paper has 1.
        learning_rate: of Adam (beta1 0.5) at the start, for both networks; the paper's is 2e-4.
        content: weight of the absolute difference of pixels; 0 leaves only the adversary.
        perceptual: weight of the absolute difference of feature maps (of fixed random convolutions).
        feature_matching: weight of the difference of the discriminator's own features (Wang et al. 2018,
            arXiv:1711.11585).
        gamma: weight of R1 and R2 at 32 x 32 x 3.
        alone: share of the training in which the generator learns from pixels and maps alone, before there is an
            adversary; of ``r3`` only.
    """
    from ganlib.core import OptimiserSettings, Plan, Schedule, constant
    from ganlib.errors import UsageError
    from ganlib.metrics.features import RandomConvolutions
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.degrading import degradation
    from ganlib.tasks.translate import Translate

    images_only("pix2pix", setting)
    paper = adversary == "paper"
    spoiling = degradation(degrade, setting.spec)
    given = setting.spec.condition if spoiling is None else spoiling.given(setting.spec)
    if given is None:
        raise UsageError(
            "recipe pix2pix learns from pairs, and these are single pictures: give folders A/ and B/ of equal names, "
            "pictures side by side, or (given, wanted); or have the given ones made: degrade=grey, noise, mask, down4"
        )

    if alone > 1:
        raise UsageError(f"alone={alone} of recipe pix2pix: accepted is 0 to 1")
    first = alone if adversary == "r3" else 0.0
    rates = [Schedule(learning_rate, learning_rate / 100, begin) for begin in (0.0, first)]
    adam = [OptimiserSettings(rate, beta1=0.5, beta2=constant(0.999)) for rate in rates]
    return Plan(
        Translate(
            lambda: _generator(given, setting.spec, width, paper, adds=spoiling is not None and not paper),
            lambda: None if adversary == "none" else _discriminator(given, setting.spec, width, paper),
            spoiling,
            RandomConvolutions(channels_in=setting.spec.shape[0]).maps if perceptual else None,
        ),
        _objective(setting, adversary, gamma, content, perceptual, feature_matching),
        generator=adam[0],
        discriminator=adam[1],
        batch_items=batch_items,
        ema_halflife_items=constant(0 if paper else 2_000),
        items=1_000_000,
        joint_verdicts=not paper,
        pretraining=first,
        notes={"adversary": adversary} | ({} if spoiling is None else {"degrade": degrade}),
    )


def _generator(given: "Spec", wanted: "Spec", width: int, paper: bool, *, adds: bool) -> "nn.Module":
    from ganlib.networks.unet import UNetGenerator, depth_for

    depth, dropout = depth_for(*wanted.shape[1:]), 0.5 if paper else 0.0
    return UNetGenerator(given.shape[0], wanted.shape[0], width=width, depth=depth, dropout=dropout, adds=adds)


def _discriminator(given: "Spec", wanted: "Spec", width: int, paper: bool) -> "nn.Module":
    from ganlib.networks.patch import PatchDiscriminator, layers_for

    (channels, *sides), norm = wanted.shape, "batch" if paper else "none"
    return PatchDiscriminator(
        channels, condition_channels=given.shape[0], width=width, layers=layers_for(*sides), normalisation=norm
    )


def _objective(
    setting: Setting, adversary: str, gamma: float, content: float, perceptual: float, feature_matching: float
) -> "Objective":
    import math

    from ganlib.core import Objective, WeightedPenalty, constant
    from ganlib.errors import UsageError
    from ganlib.losses import NonSaturating, RelativisticPairing
    from ganlib.penalties import R1, R2
    from ganlib.penalties.matching import PairedFeatures

    weights = {"content": content} | ({"perceptual": perceptual} if perceptual else {})
    own = {"features": WeightedPenalty(PairedFeatures(), constant(feature_matching))} if feature_matching else {}
    held = {name: constant(value) for name, value in weights.items()}
    if adversary == "none" and feature_matching:
        raise UsageError(
            f"feature_matching={feature_matching} of recipe pix2pix compares features of the discriminator, and "
            "adversary=none has none; leave it out, or take perceptual"
        )
    if adversary == "none":
        return Objective(None, {}, held)
    if adversary == "paper":
        return Objective(NonSaturating(), {}, held, generator_penalties=own)
    weight = constant(gamma * math.prod(setting.spec.shape) / 3072)
    penalties = {name: WeightedPenalty(item, weight, 8) for name, item in (("r1", R1()), ("r2", R2()))}
    return Objective(RelativisticPairing(), penalties, held, generator_penalties=own)
