"""Pictures of one kind into pictures of another, without pairs."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, domains_recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@domains_recipe
def cyclegan(
    setting: Setting,
    *,
    width: int = 16,
    blocks: int = 4,
    batch_items: int = 8,
    learning_rate: float = 5e-4,
    cycle: float = 10.0,
    identity: float = 5.0,
    buffer: int = 50,
    earlier: float = 0.5,
) -> "Plan":
    """Two kinds of pictures into each other, there and back, without pairs. Zhu et al. 2017, arXiv:1703.10593

    Data are two sets (:func:`ganlib.data.load_domains`): trainA/ and trainB/, any two folders, two arrays. Both
    directions are one generator of two networks (residual, instance normalised), both discriminators one of two
    PatchGANs, trained together with least squares. ``predict`` takes pictures of any size and the domain they are to
    become. Here the batch is larger than the paper's, the networks smaller, the rates fall by half a cosine, and
    samples are of a moving average.

    Args:
        width: channels of the finest layers; the paper has 64.
        blocks: residual blocks of each generator; the paper has 9 for 256 x 256, 6 for 128 x 128.
        batch_items: items per step, half of each kind; an even number.
        learning_rate: of Adam (beta1 0.5) at the start, for all networks; the paper's is 2e-4.
        cycle: weight of the way there and back; the paper's.
        identity: weight of leaving alone what is of the wanted kind already; 0 leaves it out.
        buffer: earlier fakes of each kind that are kept for the discriminators; the paper's.
        earlier: how likely a discriminator judges one of them instead of a new one; half as in Shrivastava et al. 2017
            (arXiv:1612.07828); 0 keeps none.
    """
    from ganlib.core import FakeBuffer, Objective, OptimiserSettings, Plan, Schedule, constant
    from ganlib.errors import UsageError
    from ganlib.losses import LeastSquares
    from ganlib.networks.patch import PatchDiscriminator, layers_for
    from ganlib.networks.routed import RoutedDiscriminator, RoutedGenerator
    from ganlib.networks.translator import TranslatingGenerator, downsamplings_for
    from ganlib.recipes._shared import images_only, two_domains
    from ganlib.tasks.unpaired import Cycle

    images_only("cyclegan", setting)
    two_domains("cyclegan", setting, batch_items)
    if earlier > 1:
        raise UsageError(f"earlier={earlier} of recipe cyclegan: accepted is 0 to 1")
    channels, *sides = setting.spec.shape
    layers = layers_for(*sides)
    adam = OptimiserSettings(Schedule(learning_rate, learning_rate / 100), beta1=0.5, beta2=constant(0.999))
    weights = {"cycle": cycle} | ({"identity": identity} if identity else {})
    return Plan(
        Cycle(
            lambda: RoutedGenerator(
                lambda: TranslatingGenerator(
                    channels, channels, width=width, blocks=blocks, downsamplings=downsamplings_for(*sides)
                )
            ),
            lambda: RoutedDiscriminator(
                lambda: PatchDiscriminator(channels, width=width, layers=layers, normalisation="instance")
            ),
            identity > 0,
        ),
        Objective(LeastSquares(), {}, {name: constant(value) for name, value in weights.items()}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(2_000),
        items=500_000,
        balanced=True,
        fake_buffer=FakeBuffer(buffer, 2, earlier) if earlier else None,
    )
