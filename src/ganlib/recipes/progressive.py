"""ProGAN: small pictures first."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def progressive(
    setting: Setting,
    *,
    width: int | None = None,
    widest: int | None = None,
    latent: int | None = None,
    growing_share: float = 0.5,
    batch_items: int | None = None,
    learning_rate: float | None = None,
    penalty: float = 10.0,
    drift: float = 1e-3,
    ema_halflife_items: float | None = None,
) -> "Plan":
    """Networks that grow with the pictures, under WGAN-GP. Karras et al. 2018, arXiv:1710.10196

    What is left at None is the paper's on a GPU and small on a processor. It differs from the paper in that growth is
    a share of the run instead of 800,000 items a part; in that one batch size serves all stages; in that the slope is
    taken to pictures of the full size, of which a network that has not grown sees means over blocks; and in classes,
    which are an embedding beside the latent and a projection in the discriminator, where the paper adds a classifier.

    Minibatch deviation mixes the items of a group, so the slope is that of the sum of a batch's logits.

    Args:
        width: channels of the finest stage; each coarser one has twice as many.
        widest: the most channels of a stage.
        latent: width of the random input; it is normalised, so that truncation changes little.
        growing_share: the share of the run after which the networks are grown.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0, beta2 0.99), for both networks.
        penalty: weight of the penalty on the slope.
        drift: weight of the squared logits of real items.
        ema_halflife_items: half-life of the generator's moving average.
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, WeightedPenalty, constant
    from ganlib.losses import Wasserstein
    from ganlib.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator
    from ganlib.penalties import GradientPenalty
    from ganlib.penalties.logits import Drift
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes, small = setting.spec.shape, setting.num_classes, setting.device == "cpu"
    images_only("progressive", setting)
    # The paper's 16 at 1024 pixels, 128 at 128 and 512 at 32 and below.
    chosen = width or (16 if small else min(512, max(16, 16384 // max(shape[1:]))))
    most = widest or (128 if small else 512)
    wide = latent or (64 if small else 512)
    adam = OptimiserSettings(constant(learning_rate or (3e-3 if small else 1e-3)), beta1=0.0, beta2=constant(0.99))
    penalties = {
        "gradient_penalty": WeightedPenalty(GradientPenalty(), constant(penalty)),
        "drift": WeightedPenalty(Drift(), constant(drift)),
    }
    return Plan(
        Generate(
            lambda: ProgressiveGenerator(
                shape, latent=wide, width=chosen, widest=most, growing_share=growing_share, num_classes=classes
            ),
            lambda: ProgressiveDiscriminator(
                shape, width=chosen, widest=most, growing_share=growing_share, num_classes=classes
            ),
            wide,
        ),
        Objective(Wasserstein(), penalties),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items or min(16 if small else 64, max(2, setting.num_items)),
        ema_halflife_items=constant(10_000 if ema_halflife_items is None else ema_halflife_items),
        items=1_000_000 if small else 12_000_000,
        notes={"width": chosen, "latent": wide},
    )
