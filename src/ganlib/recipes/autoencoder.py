"""The autoencoder, to compare with."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def autoencoder(
    setting: Setting,
    *,
    width: int = 32,
    latent: int = 64,
    batch_items: int = 64,
    learning_rate: float = 1e-3,
) -> "Plan":
    """Reconstruction through a narrow code, no adversary; a comparator. Bank et al. 2020, arXiv:2003.05991

    Strided convolutions to the code and transposed ones back; perceptrons for vectors and pictures up to 12 x 12; the
    mean squared error. It has no prior: to draw samples, a Gaussian is fitted to the codes (running moments), which is
    rough. ``predict`` reconstructs. Classes, where there are any, are known to both halves.

    Args:
        width: channels of the finest layer; perceptrons have 16 times as many units.
        latent: width of the code.
        batch_items: items per step.
        learning_rate: of Adam at the start; it falls to a hundredth by half a cosine.
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, Schedule, constant
    from ganlib.networks.autoencoder import Autoencoder
    from ganlib.tasks.encode import Reconstruct

    shape, classes = setting.spec.shape, setting.num_classes
    adam = OptimiserSettings(Schedule(learning_rate, learning_rate / 100), beta1=0.9, beta2=constant(0.999))
    return Plan(
        Reconstruct(lambda: Autoencoder(shape, latent=latent, width=width, num_classes=classes), lambda: None, latent),
        Objective(None, weights={"reconstruction": constant(1.0)}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(2_000),
        items=1_000_000,
        mixed_precision=setting.spec.kind == "image",
    )
