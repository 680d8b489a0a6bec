"""Pictures of one kind into pictures of another, without pairs and one way only."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, domains_recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@domains_recipe
def cut(
    setting: Setting,
    *,
    width: int = 16,
    blocks: int = 4,
    batch_items: int = 8,
    learning_rate: float = 5e-4,
    contrast: float = 1.0,
    identity: float = 1.0,
    patches: int = 256,
    units: int = 256,
    flips: bool = False,
) -> "Plan":
    """The first set of pictures into the second, by contrast of patches. Park et al. 2020 (CUT), arXiv:2007.15651

    Data are as for ``cyclegan`` (:func:`ganlib.data.load_domains`). One generator and one discriminator in place of two
    of each: that each patch of the result should know its own place in the given picture replaces the way back. The
    loss is least squares, the generator antialiased. Here the batch is larger than the paper's, the networks smaller,
    the rates fall by half a cosine, and samples are of a moving average. `contrast=10, identity=0, flips=True` is
    FastCUT.

    Args:
        width: channels of the finest layers; the paper has 64.
        blocks: residual blocks of the generator; the paper has 9.
        batch_items: items per step, half of each set; an even number.
        learning_rate: of Adam (beta1 0.5) at the start, for all networks; the paper's is 2e-4.
        contrast: weight of the contrast between pictures and what is made of them; the paper's.
        identity: weight of the same for pictures of the wanted set, which are to stay; 0 leaves it out.
        patches: places compared in each layer, at most; the paper's.
        units: of the heads that compare; the paper's.
        flips: translate every second picture as its mirror image, and compare it mirrored back.
    """
    import torch

    from ganlib.core import Objective, OptimiserSettings, Plan, Schedule, constant
    from ganlib.losses import LeastSquares
    from ganlib.networks.contrast import ContrastingGenerator
    from ganlib.networks.patch import PatchDiscriminator, layers_for
    from ganlib.networks.translator import TranslatingGenerator, downsamplings_for
    from ganlib.recipes._shared import images_only, two_domains
    from ganlib.tasks.contrast import Contrast

    images_only("cut", setting)
    two_domains("cut", setting, batch_items)
    channels, *sides = setting.spec.shape

    def translator() -> TranslatingGenerator:
        halvings = downsamplings_for(*sides)
        return TranslatingGenerator(
            channels, channels, width=width, blocks=blocks, downsamplings=halvings, antialiased=True
        )

    with torch.device("meta"):  # its shapes alone
        shapes = translator().feature_shapes(*sides)
    adam = OptimiserSettings(Schedule(learning_rate, learning_rate / 100), beta1=0.5, beta2=constant(0.999))
    weights = {"contrast": contrast} | ({"identity": identity} if identity else {})
    return Plan(
        Contrast(
            lambda: ContrastingGenerator(translator(), shapes, units=units),
            lambda: PatchDiscriminator(channels, width=width, layers=layers_for(*sides), normalisation="instance"),
            shapes,
            patches,
            identity > 0,
            flips,
        ),
        Objective(LeastSquares(), {}, {name: constant(value) for name, value in weights.items()}),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(2_000),
        items=500_000,
        balanced=True,
    )
