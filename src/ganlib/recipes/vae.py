"""The variational autoencoder, to compare with."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def vae(
    setting: Setting,
    *,
    width: int = 32,
    latent: int = 32,
    batch_items: int = 64,
    learning_rate: float = 1e-3,
    beta: float = 1.0,
) -> "Plan":
    """A variational autoencoder, no adversary; a comparator. Kingma & Welling 2014, arXiv:1312.6114

    Strided convolutions where the paper has one hidden layer; perceptrons for vectors and pictures up to 12 x 12. The
    likelihood of pictures is the discretised logistic with a learned scale for each channel (Salimans et al. 2017,
    arXiv:1701.05517), that of vectors a Gaussian with one for each column. ``bits_per_dimension`` in the log is the
    bound itself, whatever `beta` is: at most so many bits are needed for each number of a picture in 8 bits.
    ``predict`` reconstructs. Classes, where there are any, are known to both halves.

    Args:
        width: channels of the finest layer; perceptrons have 16 times as many units.
        latent: width of the code.
        batch_items: items per step.
        learning_rate: of Adam at the start; it falls to a hundredth by half a cosine.
        beta: weight of the divergence of the code from the prior (Higgins et al. 2017, "beta-VAE", ICLR).
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, Schedule, constant
    from ganlib.networks.autoencoder import VariationalAutoencoder
    from ganlib.tasks.encode import Variational

    shape, classes = setting.spec.shape, setting.num_classes
    adam = OptimiserSettings(Schedule(learning_rate, learning_rate / 100), beta1=0.9, beta2=constant(0.999))
    weights = {"reconstruction": 1.0, "divergence": beta, "bits_per_dimension": 0.0}
    return Plan(
        Variational(
            lambda: VariationalAutoencoder(shape, latent=latent, width=width, num_classes=classes),
            lambda: None,
            latent,
            likelihood="pictures" if setting.spec.kind == "image" else "vectors",
        ),
        Objective(None, weights={name: constant(weight) for name, weight in weights.items()}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(2_000),
        items=1_000_000,
        mixed_precision=setting.spec.kind == "image",
    )
