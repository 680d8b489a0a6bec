"""The projection discriminator: classes for SNGAN."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, conditional_recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@conditional_recipe
def projection(
    setting: Setting,
    *,
    width: int | None = None,
    discriminator_width: int | None = None,
    latent: int = 128,
    batch_items: int | None = None,
    learning_rate: float | None = None,
    discriminator_learning_rate: float | None = None,
    discriminator_steps: int | None = None,
    ema_halflife_items: float = 10_000,
) -> "Plan":
    """cGAN with projection discriminator, on SNGAN's networks. Miyato & Koyama 2018, arXiv:1802.05637

    The discriminator's logit is w·h + e(class)·h, e spectrally normalised too; batch normalisation in the generator has
    a gain and a bias for each class. All else is that of the recipe ``sngan``. Needs labels.

    Args:
        width: channels of the generator's finest stage; at 32 x 32 of all stages.
        discriminator_width: the same of the discriminator.
        latent: width of the random input.
        batch_items: items per update of the discriminator.
        learning_rate: of the generator.
        discriminator_learning_rate: of the discriminator; the generator's unless given.
        discriminator_steps: updates of the discriminator per update of the generator.
        ema_halflife_items: half-life of the generator's moving average; 0 for none, as in the paper.
    """
    from ganlib.recipes._shared import images_only
    from ganlib.recipes.sngan import sngan

    images_only("projection", setting)
    return sngan(
        width=width,
        discriminator_width=discriminator_width,
        latent=latent,
        batch_items=batch_items,
        learning_rate=learning_rate,
        discriminator_learning_rate=discriminator_learning_rate,
        discriminator_steps=discriminator_steps,
        ema_halflife_items=ema_halflife_items,
    ).plan(setting)
