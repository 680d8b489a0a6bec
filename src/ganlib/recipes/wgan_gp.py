"""Wasserstein GAN, the discriminator kept smooth by a penalty on its gradient."""

from typing import TYPE_CHECKING, Literal

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def wgan_gp(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 64,
    learning_rate: float = 1e-4,
    gradient_penalty: float = 10.0,
    discriminator_steps: int = 5,
    normalisation: Literal["layer", "none"] = "layer",
) -> "Plan":
    """The Wasserstein distance, gradient penalty. Gulrajani et al. 2017, arXiv:1704.00028

    Algorithm 1 with its numbers, on DCGAN networks: Adam with beta1 0 and beta2 0.9. The discriminator has no batch
    normalisation, since the penalty is on the gradient of each item alone. Classes, where there are any, are an
    embedding beside the latent and a projection in the discriminator, where the paper's classes are an auxiliary task.

    Args:
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per update of a network.
        learning_rate: of Adam, for both networks.
        gradient_penalty: weight of E(‖∇D‖-1)² between real and fake items.
        discriminator_steps: updates of the discriminator for each of the generator.
        normalisation: of the discriminator: "layer", as the paper advises, or "none".
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, WeightedPenalty, constant
    from ganlib.losses import Wasserstein
    from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from ganlib.penalties import GradientPenalty
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("wgan_gp", setting)
    adam = OptimiserSettings(constant(learning_rate), beta1=0.0, beta2=constant(0.9))
    penalty = WeightedPenalty(GradientPenalty(), constant(gradient_penalty))
    return Plan(
        Generate(
            lambda: DCGANGenerator(shape, latent=latent, width=width, num_classes=classes),
            lambda: DCGANDiscriminator(shape, width=width, num_classes=classes, normalisation=normalisation),
            latent,
        ),
        Objective(Wasserstein(), {"gradient_penalty": penalty}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
        discriminator_steps=discriminator_steps,
    )
