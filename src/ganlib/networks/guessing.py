"""Around any discriminator: a picture of the label beside the item, and a guess of what made the item.

The discriminator within answers with its last features, of `num_features` numbers; it may be of any family.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE


class WithLabelPlane(nn.Module):
    """The label as one more channel, learned pixel by pixel for each class, beside the picture that is judged.

    The embedding of a label, one-hot, by a linear layer; after Mirza & Osindero 2014, arXiv:1411.1784, section 3.1.
    """

    def __init__(self, body: nn.Module, height: int, width: int, *, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.planes = nn.Embedding(num_classes, height * width)
        self.size = (height, width)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        if labels is None:
            raise ValueError("this network was built with classes: pass labels, integers [batch]")
        planes = self.planes(labels).unflatten(1, (1, *self.size)).to(items.dtype)
        return self.body(torch.cat([items, planes], 1))


class WithGuess(nn.Module):
    """A discriminator with a second head, on the features that its logit is computed from: :attr:`Verdict.classes`.

    Class logits in AC-GAN (Odena et al. 2017, arXiv:1610.09585), codes in InfoGAN (Chen et al. 2016, arXiv:1606.03657),
    there with a hidden layer of `hidden` units of its own. Labels are ignored: whoever knows them has nothing to guess.
    """

    def __init__(self, body: nn.Module, num_features: int, *, num_guessed: int, hidden: int = 0) -> None:
        super().__init__()
        self.body = body
        layers: list[nn.Module] = []
        if hidden:
            layers = [nn.Linear(num_features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.LeakyReLU(SLOPE, True)]
        self.guess = nn.Sequential(*layers, nn.Linear(hidden or num_features, num_guessed))

    def forward(self, items: Float[Tensor, "batch *item"], labels: Int[Tensor, " batch"] | None = None) -> Verdict:
        verdict: Verdict = self.body(items)
        return replace(verdict, classes=self.guess(verdict.features[-1].flatten(1)))
