"""The first loss with a penalty on the gradient around real items."""

from typing import TYPE_CHECKING, Literal

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def dragan(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 64,
    learning_rate: float = 2e-4,
    gradient_penalty: float = 10.0,
    normalisation: Literal["layer", "none"] = "none",
) -> "Plan":
    """A gradient penalty around real items. Kodali et al. 2017, arXiv:1705.07215

    Algorithm 1 on DCGAN networks, one update of each network in turn, with the non-saturating loss. The perturbation is
    ½ std(x) U[0, 1), as in the authors' code but for its share of 0 to 1 for each item; the paper writes N(0, c). The
    discriminator has no batch normalisation, since the penalty is on the gradient of each item alone. Classes, where
    there are any, are an embedding beside the latent and a projection in the discriminator.

    Args:
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0.5), for both networks.
        gradient_penalty: weight of E(‖∇D‖-1)² around real items.
        normalisation: of the discriminator: "layer" or "none".
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, WeightedPenalty, constant
    from ganlib.losses import NonSaturating
    from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from ganlib.penalties import Dragan
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("dragan", setting)
    adam = OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999))
    penalty = WeightedPenalty(Dragan(), constant(gradient_penalty))
    return Plan(
        Generate(
            lambda: DCGANGenerator(shape, latent=latent, width=width, num_classes=classes),
            lambda: DCGANDiscriminator(shape, width=width, num_classes=classes, normalisation=normalisation),
            latent,
        ),
        Objective(NonSaturating(), {"gradient_penalty": penalty}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
    )
