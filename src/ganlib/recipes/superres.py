"""Enlarging pictures several times."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, unconditional_recipe

if TYPE_CHECKING:
    from ganlib.core import Objective, Plan


@unconditional_recipe
def superres(
    setting: Setting,
    *,
    scale: int = 4,
    width: int = 32,
    growth: int = 16,
    blocks: int = 2,
    batch_items: int = 8,
    learning_rate: float = 1e-3,
    content: float = 5.0,
    perceptual: float = 5.0,
    gamma: float = 0.2,
) -> "Plan":
    """Pictures enlarged `scale` times; ``predict`` takes any size. Wang et al. 2018 (ESRGAN), arXiv:1809.00219

    Trained on full-size pictures, which are reduced on the way (bicubic, antialiased). The paper's generator has width
    64, growth 32 and 23 blocks; ours is smaller and adds to the bicubic enlargement. The loss is the relativistic
    pairing with R1 and R2 instead of the relativistic average: real and fake are the same picture here, and compared
    item by item nothing but the enlargement tells them apart. The feature maps of the perceptual term are those of
    fixed random convolutions, since VGG's would be a download. The discriminator is a compact one. Labels are not used.

    Args:
        scale: how many times larger pictures become.
        width: channels of both networks.
        growth: channels that each layer of a dense block adds.
        blocks: residual-in-residual dense blocks, each of three.
        batch_items: items per step.
        learning_rate: of Adam at the start, for both networks; it falls to a hundredth by half a cosine.
        content: weight of the absolute difference of pixels, beside the adversarial loss.
        perceptual: weight of the absolute difference of feature maps; 0 leaves it out.
        gamma: weight of R1 and R2 at 32 x 32 x 3.
    """
    import math

    from ganlib.core import OptimiserSettings, Plan, Schedule, constant
    from ganlib.metrics.features import RandomConvolutions
    from ganlib.networks.compact import CompactDiscriminator
    from ganlib.networks.superres import EnlargingGenerator
    from ganlib.tasks.enlarge import Enlarge

    _check(setting, scale)
    shape = setting.spec.shape
    adam = OptimiserSettings(Schedule(learning_rate, learning_rate / 100), beta1=0.5, beta2=constant(0.99))
    return Plan(
        Enlarge(
            lambda: EnlargingGenerator(shape[0], scale=scale, width=width, growth=growth, blocks=blocks),
            lambda: CompactDiscriminator(shape, width=width),
            scale,
            RandomConvolutions(channels_in=shape[0]).maps if perceptual else None,
        ),
        _objective(gamma * math.prod(shape) / 3072, content, perceptual),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items,
        ema_halflife_items=constant(2_000),
        items=500_000,
        joint_verdicts=True,
    )


def _objective(gamma: float, content: float, perceptual: float) -> "Objective":
    from ganlib.core import Objective, WeightedPenalty, constant
    from ganlib.losses import RelativisticPairing
    from ganlib.penalties import R1, R2

    weights = {"content": content} | ({"perceptual": perceptual} if perceptual else {})
    penalties = {name: WeightedPenalty(item, constant(gamma), 8) for name, item in (("r1", R1()), ("r2", R2()))}
    return Objective(RelativisticPairing(), penalties, {name: constant(value) for name, value in weights.items()})


def _check(setting: Setting, scale: int) -> None:
    from ganlib.errors import UsageError

    spec = setting.spec
    if spec.kind != "image":
        raise UsageError(f"recipe superres enlarges images, and these data are {spec.kind}s; take another recipe")
    if scale < 2:
        raise UsageError(f"scale={scale} of recipe superres: accepted is 2 or more")
    if any(side % scale for side in spec.shape[1:]):
        height, width = (max(side // scale, 1) * scale for side in spec.shape[1:])
        raise UsageError(
            f"recipe superres reduces pictures {scale} times, and {spec.shape[1]} x {spec.shape[2]} is no multiple of "
            f"it; the nearest is --size {height}x{width}"
        )
