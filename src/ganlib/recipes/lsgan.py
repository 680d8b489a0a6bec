"""Least squares in place of cross-entropy."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def lsgan(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 64,
    learning_rate: float = 2e-4,
    real_target: float = 1.0,
) -> "Plan":
    """Least squares in place of cross-entropy. Mao et al. 2017, arXiv:1611.04076

    Equation 9, fakes towards 0 and real items towards 1, on DCGAN networks; the paper's are deeper, for 112 x 112.
    Classes, where there are any, are an embedding beside the latent and a projection in the discriminator, where the
    paper's are a linear map of the one-hot label, concatenated in both networks.

    Args:
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0.5), for both networks.
        real_target: below 1 for one-sided label smoothing (Salimans et al. 2016).
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, constant
    from ganlib.losses import LeastSquares
    from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("lsgan", setting)
    adam = OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999))
    return Plan(
        Generate(
            lambda: DCGANGenerator(shape, latent=latent, width=width, num_classes=classes),
            lambda: DCGANDiscriminator(shape, width=width, num_classes=classes),
            latent,
        ),
        Objective(LeastSquares(real_target)),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
    )
