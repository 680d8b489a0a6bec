"""Improved GAN: DCGAN with the techniques of its successor."""

from typing import TYPE_CHECKING

from ganlib import remedies
from ganlib.recipe import Setting, recipe
from ganlib.recipes._shared import images_only
from ganlib.recipes.dcgan import dcgan

if TYPE_CHECKING:
    from ganlib.core import Plan


@recipe
def improved(
    setting: Setting,
    *,
    width: int = 64,
    latent: int = 100,
    batch_items: int = 128,
    learning_rate: float = 2e-4,
    real_target: float = 0.9,
    kernels: int = 100,
    reference_items: int = 64,
    history_weight: float = 0.0,
    matching_weight: float = 0.0,
) -> "Plan":
    """DCGAN with minibatch discrimination, virtual norms, smoothing. Salimans et al. 2016, arXiv:1606.03498

    The paper's model for samples without labels, but that it also puts noise on the discriminator's layers and has
    networks of its own for CIFAR-10. Feature matching served its classifiers, historical averaging is not said to have
    served its pictures: both are off, and at hand.

    Args:
        width: channels of the finest hidden layer; each coarser one has twice as many.
        latent: width of the random input.
        batch_items: items per step.
        learning_rate: of Adam (beta1 0.5), for both networks.
        real_target: of one-sided label smoothing.
        kernels: of minibatch discrimination, of five numbers each.
        reference_items: in the reference batch of the generator's virtual batch normalisation.
        history_weight: of historical averaging in both networks.
        matching_weight: of feature matching, beside the adversarial term.
    """
    images_only("improved", setting)
    classic = dcgan(
        width=width, latent=latent, batch_items=batch_items, learning_rate=learning_rate, real_target=real_target
    ).with_remedies(remedies.minibatch(kernels=kernels), remedies.virtual_norm(items=reference_items))
    if history_weight:
        classic = classic.with_remedies(remedies.history(weight=history_weight))
    if matching_weight:
        classic = classic.with_remedies(remedies.matching(weight=matching_weight))
    return classic.plan(setting)
