"""The first conditional GAN: both networks are given the label."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, conditional_recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@conditional_recipe
def cgan(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 128,
    learning_rate: float = 2e-4,
    real_target: float = 1.0,
) -> "Plan":
    """Labels given to both networks, as further inputs. Mirza & Osindero 2014, arXiv:1411.1784

    The label is embedded, concatenated with the latent, and as a further channel with the picture that is judged. The
    paper's networks are perceptrons, trained with momentum; these are those of DCGAN, with Adam. Needs labels.

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
    from ganlib.networks.guessing import WithLabelPlane
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("cgan", setting)
    channels, height, breadth = shape
    adam = OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999))

    def discriminator() -> WithLabelPlane:
        body = DCGANDiscriminator((channels + 1, height, breadth), width=width)
        return WithLabelPlane(body, height, breadth, num_classes=classes)

    return Plan(
        Generate(
            lambda: DCGANGenerator(shape, latent=latent, width=width, num_classes=classes),
            discriminator,
            latent,
        ),
        Objective(NonSaturating(real_target)),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
    )
