"""The variational autoencoder whose likeness is learned by a discriminator."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def vae_gan(
    setting: Setting,
    *,
    width: int = 32,
    latent: int = 64,
    batch_items: int = 64,
    learning_rate: float = 1e-3,
    gamma: float = 0.3,
    r1: float = 0.5,
) -> "Plan":
    """An autoencoder that compares by a discriminator's features. Larsen et al. 2016, arXiv:1512.09300

    Each loss reaches the part that it is for, as in algorithm 1: the encoder learns from similarity and divergence, the
    decoder from `gamma` · similarity and the adversarial loss, the discriminator from the adversarial loss alone. It
    judges reconstructions and samples of the prior. Ours are compact networks, whose discriminator is not normalised
    but has an R1 penalty, Adam instead of RMSprop, and terms divided by the numbers of an item, so that one `gamma` is
    for all sizes. ``predict`` reconstructs. Classes, where there are any, are known to all parts.

    Args:
        width: channels of the finest layer; perceptrons have 16 times as many units.
        latent: width of the code.
        batch_items: items per step.
        learning_rate: of Adam at the start, for both networks; it falls to a hundredth by half a cosine.
        gamma: what a decoder prefers: likeness where it is large, looking real where it is small.
        r1: weight of the penalty at 32 x 32 x 3; it grows with the numbers of an item.
    """
    import math

    from ganlib.core import Objective, OptimiserSettings, Plan, Schedule, WeightedPenalty, constant
    from ganlib.losses import NonSaturating
    from ganlib.networks.autoencoder import AdversarialAutoencoder, SimilarityDiscriminator, is_small
    from ganlib.networks.compact import CompactDiscriminator
    from ganlib.networks.mlp import MLPDiscriminator
    from ganlib.penalties import R1
    from ganlib.tasks.encode import Resemble

    shape, classes, bounded = setting.spec.shape, setting.num_classes, setting.spec.kind == "image"
    adam = OptimiserSettings(Schedule(learning_rate, learning_rate / 100), beta1=0.5, beta2=constant(0.99))
    judge = (
        (lambda: MLPDiscriminator(shape, widths=(16 * width,) * 2, num_classes=classes))
        if is_small(shape)
        else (lambda: CompactDiscriminator(shape, width=width, num_classes=classes))
    )
    penalty = WeightedPenalty(R1(), constant(r1 * (math.prod(shape) / 3072 if bounded else 1.0)), 8)
    return Plan(
        Resemble(
            lambda: AdversarialAutoencoder(
                shape, latent=latent, width=width, gamma=gamma, num_classes=classes, bounded=bounded
            ),
            lambda: SimilarityDiscriminator(judge(), shape[0]),
            latent,
        ),
        Objective(NonSaturating(), {"r1": penalty}, {"similarity": constant(gamma), "divergence": constant(1.0)}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(5_000),
        items=1_000_000,
        mixed_precision=bounded,
    )
