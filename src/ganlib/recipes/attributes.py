"""One generator for all attributes: pictures edited where a mask allows it."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ganlib.recipe import Setting, attributes_recipe

if TYPE_CHECKING:
    from ganlib.core import Objective, Plan, Schedule


@attributes_recipe
def attributes(
    setting: Setting,
    *,
    width: int = 16,
    blocks: int = 3,
    batch_items: int = 16,
    learning_rate: float = 2e-3,
    gamma: float = 2.0,
    class_weight: float = 1.0,
    value_weight: float = 10.0,
    cycle: float = 2.0,
    area: float = 0.3,
    roughness: float = 0.01,
) -> "Plan":
    """Pictures edited towards classes and numbers, where a mask allows it. Pumarola et al. 2018, arXiv:1807.09251

    GANimation's generator (a colour map and a mask, from the picture and what it shall have), trained in the manner of
    StarGAN (Choi et al. 2018, arXiv:1711.09020): the discriminator also reads classes and numbers, and what is edited
    back must be the picture again. Data are pictures with attributes (:func:`ganlib.data.load_attributes`): numbers,
    classes, or both. ``predict(pictures, attributes={"age": 0.3})`` edits; what is not named stays as the discriminator
    reads it. Here what is asked also sets gains and biases in the residual blocks. In place of the papers' WGAN-GP the
    loss is the relativistic pairing with R1 and R2, of an edited picture and a real one that has the wanted attributes.
    GANimation keeps its masks from closing; here the mask is to leave alone what need not change (`area`), and what is
    asked keeps it open. Both this and the way back come in slowly: held near its input from the start, a generator only
    learns to take away.

    Args:
        width: channels of the finest layers; the papers have 64.
        blocks: residual blocks of the generator; the papers have 6.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0) at the start, for the discriminator; the generator's is half of it. The papers
            have 1e-4 for both.
        gamma: weight of R1 and R2 at 32 x 32 x 3.
        class_weight: of the cross-entropy of the classes read.
        value_weight: of the squared error of the numbers read, which go from 0 to 1.
        cycle: weight of the way there and back, reached at half of the training; the papers have 10.
        area: weight of how much of a picture is changed, reached at 70 % of the training.
        roughness: weight of the differences of the mask between neighbours.
    """
    from ganlib.core import OptimiserSettings, Plan, Schedule, constant
    from ganlib.errors import UsageError
    from ganlib.networks.attributes import AttributeDiscriminator, AttributeGenerator, attribute_layers_for
    from ganlib.networks.translator import downsamplings_for
    from ganlib.recipes._shared import images_only
    from ganlib.tasks.editing import Edit

    images_only("attributes", setting)
    (channels, *sides), classes, values = setting.spec.shape, setting.num_classes, len(setting.spec.attributes)
    if classes < 2 and not values:
        raise UsageError(
            "recipe attributes needs to know something of each picture: a table in the folder (a .csv: file name, then "
            "a number for each attribute), sub-folders by class, or labels"
        )

    def generator() -> AttributeGenerator:
        halvings, told = downsamplings_for(*sides), classes + values
        return AttributeGenerator(
            channels, num_attributes=told, width=width, blocks=blocks, downsamplings=halvings, adaptive=True
        )

    def discriminator() -> AttributeDiscriminator:
        layers, told = attribute_layers_for(*sides), classes + values
        return AttributeDiscriminator(setting.spec.shape, num_attributes=told, width=width, layers=layers, told=True)

    def adam(rate: float) -> OptimiserSettings:
        return OptimiserSettings(Schedule(rate, rate / 100), beta2=constant(0.99))

    weights = {"cycle": Schedule(0.1 * cycle, cycle, 0.1, 0.5), "area": Schedule(0.0, area, 0.3, 0.7)}
    weights |= {"roughness": constant(roughness)}
    weights |= {"class": constant(class_weight)} if classes else {}
    weights |= {"values": constant(value_weight)} if values else {}
    return Plan(
        Edit(generator, discriminator, classes, values),
        _objective(gamma * math.prod(setting.spec.shape) / 3072, weights),
        generator=adam(learning_rate / 2),
        discriminator=adam(learning_rate),
        batch_items=batch_items,
        ema_halflife_items=constant(2_000),
        items=1_000_000,
        joint_verdicts=True,
        notes={} if not values else {"attributes": " ".join(each.name for each in setting.spec.attributes)},
    )


def _objective(gamma: float, weights: "Mapping[str, Schedule]") -> "Objective":
    from ganlib.core import Objective, WeightedPenalty, constant
    from ganlib.losses import RelativisticPairing
    from ganlib.penalties import R1, R2

    penalties = {name: WeightedPenalty(item, constant(gamma), 8) for name, item in (("r1", R1()), ("r2", R2()))}
    return Objective(RelativisticPairing(), penalties, weights)
