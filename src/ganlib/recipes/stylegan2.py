"""StyleGAN2: styles by modulated convolutions."""

import math
from typing import TYPE_CHECKING

from ganlib.recipe import Setting, recipe

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def stylegan2(
    setting: Setting,
    *,
    width: int | None = None,
    widest: int | None = None,
    latent: int | None = None,
    mapping_layers: int | None = None,
    mixing: float | None = None,
    batch_items: int | None = None,
    learning_rate: float | None = None,
    gamma: float | None = None,
    path_length: float | None = None,
    ema_halflife_items: float | None = None,
) -> "Plan":
    """Mapping network, modulated convolutions, noise and path length. Karras et al. 2020, arXiv:1912.04958

    What is left at None is the paper's on a GPU and small on a processor. It differs from the paper in that the lazy
    penalties (R1 in every 16th step, path length in every 8th) share the optimiser's step, with betas as they are; in
    that the running mean of the path length begins at its first value; and in classes, which the paper has not: an
    embedding beside the latent and a projection in the discriminator. In evaluation each layer's noise is a constant.

    Minibatch deviation mixes the items of a group, so R1 is taken of the sum of a batch's logits.

    Args:
        width: channels of the finest stage; each coarser one has twice as many.
        widest: the most channels of a stage.
        latent: width of the random input, of the style, and of the mapping network; the input is normalised, so that
            truncation changes little.
        mapping_layers: how many layers lead from the latent to the style.
        mixing: share of training items made with two styles.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0, beta2 0.99), for both networks.
        gamma: weight of R1; on a GPU the paper's 10 from 512 pixels on, less below by the area.
        path_length: weight of the path length penalty; 0 leaves it out.
        ema_halflife_items: half-life of the generator's moving average.
    """
    from ganlib.core import Objective, OptimiserSettings, Plan, WeightedPenalty, constant
    from ganlib.losses import NonSaturating
    from ganlib.networks.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
    from ganlib.penalties import R1
    from ganlib.penalties.memory import PathLength
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.generate import Generate

    shape, classes, small = setting.spec.shape, setting.num_classes, setting.device == "cpu"
    images_only("stylegan2", setting)
    side = math.sqrt(shape[1] * shape[2])
    # The paper's 32 at 1024 pixels, 256 at 128 and 512 at 64 and below.
    width = width or (16 if small else min(512, max(32, round(32768 / side / 32) * 32)))
    widest = widest or (128 if small else 512)
    latent = latent or (64 if small else 512)
    mixing = (0.0 if small else 0.9) if mixing is None else mixing
    gamma = (0.5 if small else 10.0 * min(1.0, (side / 512) ** 2)) if gamma is None else gamma
    # ln 2 / (r² (ln r - ln 2)) of the paper's appendix B, in the units of PathLength; it has a pole at r = 2.
    path_length = 1 / (math.log2(max(side, 4)) - 1) if path_length is None else path_length
    rate = learning_rate or (0.005 if small else 0.002)
    layers = mapping_layers or (4 if small else 8)
    adam = OptimiserSettings(constant(rate), beta1=0.0, beta2=constant(0.99))
    lengths = {"path_length": WeightedPenalty(PathLength(), constant(path_length), 8)} if path_length else {}
    return Plan(
        Generate(
            lambda: StyleGAN2Generator(
                shape,
                latent=latent,
                width=width,
                widest=widest,
                mapping_layers=layers,
                mixing=mixing,
                num_classes=classes,
            ),
            lambda: StyleGAN2Discriminator(shape, width=width, widest=widest, num_classes=classes),
            latent,
        ),
        Objective(NonSaturating(), {"r1": WeightedPenalty(R1(), constant(gamma), 16)}, generator_penalties=lengths),
        generator=adam,
        discriminator=adam,
        batch_items=batch_items or min(16 if small else 32, max(2, setting.num_items)),
        ema_halflife_items=constant(10_000 if ema_halflife_items is None else ema_halflife_items),
        items=1_000_000 if small else 25_000_000,
        notes={"width": width, "latent": latent, "gamma": gamma, "path_length": path_length},
    )
