"""SAGAN: self-attention, and spectral normalisation in both networks."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import OptimiserSettings, Plan


@recipe
def sagan(
    setting: Setting,
    *,
    width: int | None = None,
    discriminator_width: int | None = None,
    latent: int = 128,
    batch_items: int | None = None,
    learning_rate: float | None = None,
    discriminator_learning_rate: float | None = None,
    ema_halflife_items: float = 10_000,
) -> "Plan":
    """Self-attention, spectral norm in both networks, two time scales. Zhang et al. 2018, arXiv:1805.08318

    On CUDA as in the paper: 64 channels in the finest stage, Adam (0, 0.9) at 1e-4 for the generator and four times
    that for the discriminator, batches of 256. Elsewhere, for minutes on a processor: narrow networks, small batches,
    higher rates in the same proportion. Attention stands two halvings below the full size, 32 x 32 of 128 x 128, but
    not on the base grid. Beyond the paper: the moving average, and sizes that begin at their own base grid and are
    cropped. Classes, where there are any, are a projection and conditional batch normalisation.

    Args:
        width: channels of the generator's finest stage, doubled at each halving.
        discriminator_width: the same of the discriminator.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of the generator.
        discriminator_learning_rate: of the discriminator; four times the generator's unless given.
        ema_halflife_items: half-life of the generator's moving average; 0 for none, as in the paper.
    """
    from ganlib.core import Objective, Plan, constant
    from ganlib.losses import Hinge
    from ganlib.networks.resnet import ResNetDiscriminator, ResNetGenerator
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("sagan", setting)
    large = setting.device == "cuda"
    wide = width or (64 if large else 16)
    judging = discriminator_width or width or (64 if large else 24)
    rate = learning_rate or (1e-4 if large else 5e-4)
    return Plan(
        Generate(
            lambda: ResNetGenerator(shape, latent=latent, width=wide, attention=2, spectral=True, num_classes=classes),
            lambda: ResNetDiscriminator(shape, width=judging, attention=2, wide=True, num_classes=classes),
            latent,
        ),
        Objective(Hinge()),
        generator=_adam(rate),
        discriminator=_adam(discriminator_learning_rate or 4 * rate),
        batch_items=batch_items or (256 if large else 32),
        ema_halflife_items=constant(ema_halflife_items),
        items=20_000_000 if large else 2_000_000,
        joint_verdicts=True,
        notes={"width": wide, "discriminator_width": judging},
    )


def _adam(rate: float) -> "OptimiserSettings":
    from ganlib.core import OptimiserSettings, constant

    return OptimiserSettings(constant(rate), beta1=0.0, beta2=constant(0.9))
