"""Pictures into pictures, learned from pairs."""

from typing import TYPE_CHECKING, Literal

from ganlib.recipe import Setting, paired_recipe

if TYPE_CHECKING:
    from ganlib.core import Objective, Plan


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
    perceptual: float = 0.0,
    feature_matching: float = 0.0,
    gamma: float = 1.0,
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
    that it was still worse than the given picture itself after a minute of colouring. The adversary helps late and only
    a little: on outlines to clothes, beside a generator that the pixels had taught for a minute, its gradient was a
    tenth of theirs at `content=100` and brought features nearer; two thirds of theirs, at `content=10`, took them
    away. A third fewer items are seen in a time, so trainings of a few minutes are better off without it.
    Adam's rate is five times the paper's, and a batch 32, so that the first minutes are fast.

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
    """
    from ganlib.core import OptimiserSettings, Plan, Schedule, constant
    from ganlib.errors import UsageError
    from ganlib.metrics.features import RandomConvolutions
    from ganlib.networks.patch import PatchDiscriminator, layers_for
    from ganlib.networks.unet import UNetGenerator, depth_for
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.degrading import degradation
    from ganlib.tasks.translate import Translate

    images_only("pix2pix", setting)
    shape, paper = setting.spec.shape, adversary == "paper"
    spoiling = degradation(degrade, setting.spec)
    given = setting.spec.condition if spoiling is None else spoiling.given(setting.spec)
    if given is None:
        raise UsageError(
            "recipe pix2pix learns from pairs, and these are single pictures: give folders A/ and B/ of equal names, "
            "pictures side by side, or (given, wanted); or have the given ones made: degrade=grey, noise, mask, down4"
        )

    def judge() -> PatchDiscriminator:
        layers, norm = layers_for(*shape[1:]), "batch" if paper else "none"
        return PatchDiscriminator(
            shape[0], condition_channels=given.shape[0], width=width, layers=layers, normalisation=norm
        )

    adam = OptimiserSettings(Schedule(learning_rate, learning_rate / 100), beta1=0.5, beta2=constant(0.999))
    return Plan(
        Translate(
            lambda: UNetGenerator(
                given.shape[0],
                shape[0],
                width=width,
                depth=depth_for(*shape[1:]),
                dropout=0.5 if paper else 0.0,
                adds=spoiling is not None and not paper,
            ),
            judge if adversary != "none" else lambda: None,
            spoiling,
            RandomConvolutions(channels_in=shape[0]).maps if perceptual else None,
        ),
        _objective(setting, adversary, gamma, content, perceptual, feature_matching),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0 if paper else 2_000),
        items=1_000_000,
        joint_verdicts=not paper,
        notes={"adversary": adversary} | ({} if spoiling is None else {"degrade": degrade}),
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
