"""A GAN of GANs: stages from coarse to fine."""

from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def cascade(
    setting: Setting,
    *,
    stages: int | None = None,
    width: int = 32,
    latent: int = 64,
    batch_items: int = 32,
    learning_rate: float = 2e-3,
    gamma: float = 2.0,
    begin: float = 0.1,
) -> "Plan":
    """Generators in a row, each making the last one's picture larger. Denton et al. 2015 (LAPGAN), arXiv:1506.05751

    The first draws a coarse picture; each of the others is given the one before it and adds what it lacks at twice the
    size. One fit trains all: stage k begins at k · `begin` of the run. As in StackGAN (arXiv:1612.03242), and not in
    LAPGAN, a stage learns from the pictures that the stages before it make, since those are what it will be given. A
    judge for each size compares by the relativistic pairing with R1 and R2. Classes are known to all networks.

    Args:
        stages: how many; None for as many as leave the coarsest over 12 pixels, two at least.
        width: channels of the finest layer of each network.
        latent: width of the random input of each stage.
        batch_items: items per step.
        learning_rate: of Adam for the judges at the start, half of it for the generators; it falls by half a cosine.
        gamma: weight of R1 and R2 at 32 x 32 x 3 for each judge; it grows with the numbers that the judge sees.
        begin: share of the run from one stage's beginning to the next one's.
    """
    import math

    from ganlib.core import Objective, OptimiserSettings, Plan, Schedule, WeightedPenalty, constant
    from ganlib.losses import RelativisticPairing
    from ganlib.networks.cascade import CascadeDiscriminator, CascadeGenerator
    from ganlib.penalties import R1, R2
    from ganlib.tasks.stages import GenerateInStages

    shape, classes = setting.spec.shape, setting.num_classes
    count = _stages(setting, stages, begin)

    def adam(rate: float) -> OptimiserSettings:
        return OptimiserSettings(Schedule(rate, rate / 100), beta1=0.0, beta2=constant(0.99))

    # A penalty is on the mean logit: of K judges each counts 1/K² there, and 1/K in the adversarial loss.
    weight = constant(gamma * math.prod(shape) / 3072 * count)
    penalties = {name: WeightedPenalty(item, weight, 8) for name, item in (("r1", R1()), ("r2", R2()))}
    return Plan(
        GenerateInStages(
            lambda: CascadeGenerator(shape, latent=latent, width=width, stages=count, begin=begin, num_classes=classes),
            lambda: CascadeDiscriminator(shape, width=width, stages=count, begin=begin, num_classes=classes),
            latent * count,
            stages=count,
        ),
        Objective(RelativisticPairing(), penalties),
        generator=adam(learning_rate / 2),
        discriminator=adam(learning_rate),
        batch_items=batch_items,
        ema_halflife_items=constant(10_000),
        items=1_000_000,
        joint_verdicts=True,
        notes={"stages": count},
    )


def _stages(setting: Setting, stages: int | None, begin: float) -> int:
    from ganlib.errors import UsageError
    from ganlib.networks.cascade import num_stages
    from ganlib.recipes._shared import images_only

    shape = setting.spec.shape
    images_only("cascade", setting)
    count = stages or num_stages(shape[1], shape[2])
    if count < 2 or count * begin > 1 or min(shape[1:]) < 2 ** (count - 1):
        raise UsageError(
            f"stages={count}, begin={begin} of recipe cascade: accepted are 2 stages or more, all of which begin "
            f"before the end, and no more than halve the {shape[1]} x {shape[2]} pixels down to one "
            f"(the nearest size for as many is {max(shape[1], 2 ** max(count - 1, 1))} x "
            f"{max(shape[2], 2 ** max(count - 1, 1))})"
        )
    return count
