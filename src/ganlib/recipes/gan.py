"""The first GAN, as every article shows it."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def gan(
    setting: Setting,
    *,
    latent: int = 100,
    batch_items: int = 128,
    learning_rate: float = 2e-4,
    dropout: float = 0.3,
    real_target: float = 1.0,
) -> "Plan":
    """The multilayer perceptrons of the first article. Goodfellow et al. 2014, arXiv:1406.2661

    Generator 256-512-1024, discriminator 1024-512-256 with dropout, leaky rectifiers and Adam, as the articles that
    teach it have it; the paper itself used maxout, sigmoids and momentum. Classes, where there are any, are an
    embedding beside the latent and a projection in the discriminator.

    Args:
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam, for both networks.
        dropout: share of the discriminator's activations set to zero.
        real_target: below 1 for one-sided label smoothing (Salimans et al. 2016).
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, constant
    from ganlib.losses import NonSaturating
    from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    bounded = setting.spec.kind == "image"
    adam = OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999))
    return Plan(
        Generate(
            lambda: MLPGenerator(
                shape, latent=latent, widths=(256, 512, 1024), num_classes=classes, batch_norm=True, bounded=bounded
            ),
            lambda: MLPDiscriminator(shape, widths=(1024, 512, 256), num_classes=classes, dropout=dropout),
            latent,
        ),
        Objective(NonSaturating(real_target)),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(0),
        items=2_000_000,
    )
