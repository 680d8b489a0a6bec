"""Wasserstein GAN, the discriminator kept smooth by clipping its weights."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def wgan(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 64,
    learning_rate: float = 5e-5,
    clip: float = 0.01,
    discriminator_steps: int = 5,
) -> "Plan":
    """The Wasserstein distance, weights clipped, RMSprop. Arjovsky et al. 2017, arXiv:1701.07875

    Algorithm 1 with its numbers, on DCGAN networks. All weights are clipped, also the gains of the batch normalisation,
    which so shrink from about 1 to `clip`: the logits are small numbers, and training is slow, as the authors say of
    clipping. Not taken over from their code: 25 to 100 updates of the discriminator in place of 5 at the start, and now
    and then. Classes, where there are any, are an embedding beside the latent and a projection in the discriminator.

    Args:
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per update of a network.
        learning_rate: of RMSprop, for both networks.
        clip: the largest absolute weight of the discriminator.
        discriminator_steps: updates of the discriminator for each of the generator.
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, constant
    from ganlib.losses import Wasserstein
    from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from ganlib.penalties import ClipWeights
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("wgan", setting)
    rmsprop = OptimiserSettings(constant(learning_rate), kind="rmsprop")
    return Plan(
        Generate(
            lambda: DCGANGenerator(shape, latent=latent, width=width, num_classes=classes),
            lambda: DCGANDiscriminator(shape, width=width, num_classes=classes),
            latent,
        ),
        Objective(Wasserstein(), constraints=(ClipWeights(clip),)),
        generator=rmsprop,
        discriminator=rmsprop,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
        discriminator_steps=discriminator_steps,
    )
