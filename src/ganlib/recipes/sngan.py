"""SNGAN: residual networks and a spectrally normalised discriminator."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import OptimiserSettings, Plan


@recipe
def sngan(
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
    """Residual networks under spectral normalisation, hinge loss. Miyato et al. 2018, arXiv:1802.05957

    On CUDA as in the paper: 256 and 128 channels at 32 x 32, else 64 in the finest stage of both, doubled at each
    halving; five discriminator updates for one of the generator; Adam (0, 0.9) at 2e-4 falling to almost nothing.
    Elsewhere, for minutes on a processor: narrow networks, small batches, one update for one, higher rates. Beyond the
    paper: the moving average of the generator, and other sizes, which begin at their own base grid and are cropped.
    Classes, where there are any, are learned as by the recipe ``projection``.

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
    from ganlib.core import Objective, Plan, constant
    from ganlib.losses import Hinge
    from ganlib.networks.parts import pyramid
    from ganlib.networks.resnet import ResNetDiscriminator, ResNetGenerator
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("sngan", setting)
    flat, large = pyramid(*shape[1:]) == (3, 4, 4), setting.device == "cuda"
    wide = width or ((256 if flat else 64) if large else (48 if flat else 16))
    judging = discriminator_width or width or ((128 if flat else 64) if large else (48 if flat else 24))
    rate = learning_rate or (2e-4 if large else 1e-3)
    return Plan(
        Generate(
            lambda: ResNetGenerator(shape, latent=latent, width=wide, flat=flat, num_classes=classes),
            lambda: ResNetDiscriminator(shape, width=judging, flat=flat, num_classes=classes),
            latent,
        ),
        Objective(Hinge()),
        generator=_adam(rate),
        discriminator=_adam(discriminator_learning_rate or rate),
        batch_items=batch_items or (64 if large else 32),
        discriminator_steps=discriminator_steps or (5 if large else 1),
        ema_halflife_items=constant(ema_halflife_items),
        items=32_000_000 if large else 2_000_000,
        joint_verdicts=True,
        notes={"width": wide, "discriminator_width": judging},
    )


def _adam(rate: float) -> "OptimiserSettings":
    from ganlib.core import OptimiserSettings, Schedule, constant

    return OptimiserSettings(Schedule(rate, rate / 100, shape="linear"), beta1=0.0, beta2=constant(0.9))
