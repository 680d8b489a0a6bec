"""The discriminator guesses the class in place of being told it."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, conditional_recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@conditional_recipe
def acgan(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 100,
    learning_rate: float = 2e-4,
    class_weight: float = 1.0,
) -> "Plan":
    """The discriminator guesses the class as well. Odena et al. 2017, arXiv:1610.09585

    A second head of the discriminator, on the same features, classifies real and fake items; both networks want it to
    be right. The networks are those of DCGAN, without the noise and dropout that the paper's discriminator has. A fake
    has the class of the real item beside it. The label reaches the generator as an embedding beside the latent. What is
    easily told apart is what the classifier rewards: the fewer the samples of a class vary, the better. Needs labels.

    Args:
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0.5), for both networks.
        class_weight: of the cross-entropy of the guessed classes, in both networks.
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, constant
    from ganlib.losses import NonSaturating
    from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from ganlib.networks.guessing import WithGuess
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.auxiliary import GenerateGuessed

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("acgan", setting)
    adam = OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999))
    weight = constant(class_weight)

    def discriminator() -> WithGuess:
        body = DCGANDiscriminator(shape, width=width)
        return WithGuess(body, body.num_features, num_guessed=classes)

    return Plan(
        GenerateGuessed(
            lambda: DCGANGenerator(shape, latent=latent, width=width, num_classes=classes),
            discriminator,
            latent,
        ),
        Objective(NonSaturating(), weights={"real_class": weight, "fake_class": weight, "class": weight}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
    )
