"""DCGAN, the classic of images."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def dcgan(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 128,
    learning_rate: float = 2e-4,
    real_target: float = 1.0,
) -> "Plan":
    """Strided convolutions with batch normalisation. Radford et al. 2015, arXiv:1511.06434

    The paper's networks at 64 x 64 with `width` 128; the widely used code has 64. Latents are normal where the paper's
    are uniform. Other sizes begin at their own base grid and are cropped. Classes, where there are any, are an
    embedding beside the latent and a projection in the discriminator.

    Args:
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0.5), for both networks.
        real_target: below 1 for one-sided label smoothing (Salimans et al. 2016).
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, constant
    from ganlib.losses import NonSaturating
    from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("dcgan", setting)
    adam = OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999))
    return Plan(
        Generate(
            lambda: DCGANGenerator(shape, latent=latent, width=width, num_classes=classes),
            lambda: DCGANDiscriminator(shape, width=width, num_classes=classes),
            latent,
        ),
        Objective(NonSaturating(real_target)),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
    )
