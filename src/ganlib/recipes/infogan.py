"""A part of the latent can be read off the item, and so comes to mean something.

To choose what is drawn, set the code in the first columns of latents. A category each, and a code that goes from end to
end::

    latents = gan.latents(100)
    latents[:, :10] = numpy.eye(10)[numpy.arange(100) % 10]
    latents[:, 10] = numpy.linspace(-2, 2, 100)
    items = gan.predict(latents)
"""

from typing import TYPE_CHECKING, Literal

from ganlib.recipe import Setting, unconditional_recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@unconditional_recipe
def infogan(
    setting: Setting,
    *,
    network: Literal["dcgan", "paper"] = "dcgan",
    width: int = 64,
    latent: int = 62,
    categories: int = 10,
    continuous: int = 2,
    batch_items: int = 128,
    learning_rate: float = 2e-4,
    generator_learning_rate: float = 1e-3,
    information: float = 1.0,
) -> "Plan":
    """A code within the latent, kept readable: categories without labels. Chen et al. 2016, arXiv:1606.03657

    The head that reads the code shares the discriminator's layers but the last, and has one of 128 units of its own.
    The first columns of a latent are the code: the largest of the first `categories` is the category, the next
    `continuous` are normal numbers, which become uniform from -1 to 1. Labels are not used: categories are found.

    ``paper`` networks are those for MNIST at 28 x 28, with a fully connected layer of 1,024 units in each, and at other
    sizes DCGAN's with these layers. They learn slowly: batches of real and of fake items, each normalised just before
    the logit, differ little there, and the default is without.

    Args:
        network: ``dcgan`` or ``paper``.
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input beside the code.
        categories: values of the categorical code.
        continuous: how many continuous codes.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0.5), for the discriminator.
        generator_learning_rate: the same for the generator.
        information: weight of -log Q(code | item), in both networks.
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, constant
    from ganlib.losses import NonSaturating
    from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
    from ganlib.networks.guessing import WithGuess
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.coded import GenerateCoded

    shape = setting.spec.shape
    images_only("infogan", setting)
    code, weight = categories + continuous, constant(information)
    dense = 1024 if network == "paper" else 0

    def discriminator() -> WithGuess:
        body = DCGANDiscriminator(shape, width=width, dense=dense)
        return WithGuess(body, body.num_features, num_guessed=code, hidden=128)

    return Plan(
        GenerateCoded(
            lambda: DCGANGenerator(shape, latent=latent + code, width=width, dense=dense),
            discriminator,
            latent,
            categories,
            continuous,
        ),
        Objective(NonSaturating(), weights={"category": weight, "continuous": weight}),
        generator=OptimiserSettings(constant(generator_learning_rate), beta1=0.5, beta2=constant(0.999)),
        discriminator=OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999)),
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
    )
