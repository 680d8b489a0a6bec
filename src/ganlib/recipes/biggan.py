"""BigGAN: class and latent at every block, orthogonal regularisation, a moving average."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import OptimiserSettings, Plan, Task


@recipe
def biggan(
    setting: Setting,
    *,
    width: int | None = None,
    discriminator_width: int | None = None,
    latent: int | None = None,
    shared: int = 128,
    batch_items: int | None = None,
    learning_rate: float | None = None,
    discriminator_learning_rate: float | None = None,
    discriminator_steps: int | None = None,
    orthogonal: float = 1e-4,
    ema_halflife_items: float = 10_000,
) -> "Plan":
    """SAGAN enlarged: shared class embedding, skip-z, orthogonal regularisation. Brock et al. 2018, arXiv:1809.11096

    On CUDA the paper's networks for 128 x 128 (96 channels in the finest stage), two discriminator updates for one of
    the generator, and batches of 256 instead of 2048, at the rates 5e-5 and 2e-4. Elsewhere, for minutes on a
    processor: narrow networks, small batches, one update for one, higher rates. Sizes begin at their own base grid and
    are cropped. Without classes the latent's parts alone are the condition. The moving average samples with standing
    statistics, as the library does for all; ``sample --truncation`` is the paper's trick (the latents are mapped into
    the range, not drawn again).

    Args:
        width: channels of the generator's finest stage, doubled at each halving.
        discriminator_width: the same of the discriminator.
        latent: width of the random input; 20 for the base grid and for each block unless given.
        shared: width of the class embedding that all blocks share.
        batch_items: items per update of the discriminator.
        learning_rate: of the generator.
        discriminator_learning_rate: of the discriminator; four times the generator's unless given.
        discriminator_steps: updates of the discriminator per update of the generator.
        orthogonal: weight of the orthogonal regularisation of the generator.
        ema_halflife_items: half-life of the generator's moving average.
    """
    from ganlib.core import Objective, Plan, WeightedPenalty, constant
    from ganlib.losses import Hinge
    from ganlib.weights import OrthogonalRegularisation

    large = setting.device == "cuda"
    numbers = _latent(setting, latent)
    wide = width or (96 if large else 16)
    judging = discriminator_width or width or (96 if large else 24)
    rate = learning_rate or (5e-5 if large else 5e-4)
    penalty = WeightedPenalty(OrthogonalRegularisation(), constant(orthogonal))
    return Plan(
        _task(setting, wide, judging, numbers, shared),
        Objective(Hinge(), generator_penalties={"orthogonal": penalty}),
        generator=_adam(rate),
        discriminator=_adam(discriminator_learning_rate or 4 * rate),
        batch_items=batch_items or (256 if large else 32),
        discriminator_steps=discriminator_steps or (2 if large else 1),
        ema_halflife_items=constant(ema_halflife_items),
        items=40_000_000 if large else 2_000_000,
        joint_verdicts=True,
        notes={"width": wide, "discriminator_width": judging, "latent": numbers},
    )


def _adam(rate: float) -> "OptimiserSettings":
    from ganlib.core import OptimiserSettings, constant

    return OptimiserSettings(constant(rate), beta1=0.0, beta2=constant(0.999))


def _latent(setting: Setting, latent: int | None) -> int:
    """The width of the latent: 20 for each part, as at 128 x 128. Raises UsageError for too few, and for vectors."""
    from ganlib.errors import UsageError
    from ganlib.networks.parts import pyramid
    from ganlib.recipes._shared import images_only

    images_only("biggan", setting)
    parts = pyramid(*setting.spec.shape[1:])[0] + 1
    if latent is not None and latent < parts:
        raise UsageError(f"recipe biggan cuts the latent into {parts} parts at this size; latent={latent} is too few")
    return latent or 20 * parts


def _task(setting: Setting, width: int, discriminator_width: int, latent: int, shared: int) -> "Task":
    from ganlib.networks.biggan import BigGANGenerator
    from ganlib.networks.resnet import ResNetDiscriminator
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    return Generate(
        lambda: BigGANGenerator(shape, latent=latent, width=width, shared=shared, num_classes=classes),
        lambda: ResNetDiscriminator(shape, width=discriminator_width, attention=1, wide=True, num_classes=classes),
        latent,
    )
