"""FastGAN: few pictures, little time."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe
from ganlib.recipes._shared import AugmentKind, augmentation

if TYPE_CHECKING:
    from ganlib.core import Plan


ITEMS = 400_000


@recipe
def fastgan(
    setting: Setting,
    *,
    width: int | None = None,
    latent: int = 256,
    batch_items: int = 8,
    learning_rate: float = 2e-4,
    rebuilding: float = 1.0,
    ema_halflife_items: float | None = None,
    augment: AugmentKind = "diffaugment",
) -> "Plan":
    """Skip-layer excitation and a self-supervised discriminator. Liu et al. 2021, arXiv:2101.04775

    For few pictures. It differs from the paper in that the rebuilt pictures are compared by their mean absolute
    difference and not by a perceptual one, which would need a downloaded network, in that logits are linear in the
    whole base grid, and in classes: an embedding beside the latent and a projection in the discriminator.

    Args:
        width: channels of the finest stage; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0.5), for both networks.
        rebuilding: weight of the difference between real pictures and what the discriminator rebuilt of them.
        ema_halflife_items: half-life of the generator's moving average; None for the paper's 0.999 a step.
        augment: changes of what the discriminator sees; the paper's is "diffaugment".
    """
    import math

    from ganlib.core import Objective, OptimiserSettings, Plan, constant
    from ganlib.losses import Hinge
    from ganlib.networks.fastgan import FastGANDiscriminator, FastGANGenerator
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.rebuild import GenerateRebuilding

    shape, classes = setting.spec.shape, setting.num_classes
    images_only("fastgan", setting)
    # The paper's 32 at 1024 pixels, more where there are fewer doublings.
    chosen = width or (16 if setting.device == "cpu" else min(128, max(32, 32768 // max(shape[1:]))))
    halflife = batch_items * math.log(0.5) / math.log(0.999) if ema_halflife_items is None else ema_halflife_items
    adam = OptimiserSettings(constant(learning_rate), beta1=0.5, beta2=constant(0.999))
    return Plan(
        GenerateRebuilding(
            lambda: FastGANGenerator(shape, latent=latent, width=chosen, num_classes=classes),
            lambda: FastGANDiscriminator(shape, width=chosen, num_classes=classes),
            latent,
        ),
        Objective(Hinge(), weights={"rebuilding": constant(rebuilding)}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(halflife),
        items=ITEMS,
        augmentation=augmentation(augment, setting, setting.budget_items or ITEMS, recipe="fastgan"),
        notes={"width": chosen},
    )
