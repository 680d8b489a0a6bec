"""DCGAN: strided convolutions with batch normalisation. Radford et al. 2015, arXiv:1511.06434, figure 1, section 3."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE, Projection, WithClass, crop, pad, pyramid

Normalisation = Literal["batch", "layer", "none"]
"""Over the batch; over all numbers of an item (Ba et al. 2016, arXiv:1607.06450), with a gain per channel; or none."""


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def _normalise(kind: Normalisation, channels: int) -> list[nn.Module]:
    match kind:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case "none":
            return []


def _dense(num_inputs: int, num_outputs: int, *, after: nn.Module) -> nn.Sequential:
    linear = nn.Linear(num_inputs, num_outputs, bias=False)
    nn.init.normal_(linear.weight, 0.0, 0.02)
    return nn.Sequential(linear, nn.BatchNorm1d(num_outputs), after)


class DCGANGenerator(nn.Module):
    """A 4 x 4 grid (or the size's own) doubled by transposed convolutions; rectifiers; tanh. Cropped to any size.

    `dense` is the width of a fully connected layer before the grid, as InfoGAN has it; 0 for none.
    """

    def __init__(self, shape: Sequence[int], *, latent: int, width: int, num_classes: int = 0, dense: int = 0) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, base_height, base_width = pyramid(self.height, self.width, largest_base=7)
        self.condition = WithClass(num_classes, latent)
        hidden = width * 2 ** max(doublings - 1, 0)
        given = latent + self.condition.width
        self.dense = _dense(given, dense, after=nn.ReLU(True)) if dense else None
        layers: list[nn.Module] = [nn.ConvTranspose2d(dense or given, hidden, (base_height, base_width), bias=False)]
        for _ in range(doublings - 1):
            layers += [
                nn.BatchNorm2d(hidden),
                nn.ReLU(True),
                nn.ConvTranspose2d(hidden, hidden // 2, 4, 2, 1, bias=False),
            ]
            hidden //= 2
        last = nn.ConvTranspose2d(hidden, channels, 4, 2, 1) if doublings else nn.Conv2d(hidden, channels, 3, 1, 1)
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(hidden), nn.ReLU(True), last, nn.Tanh())
        self.apply(_initialise)

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        given = self.condition(latent, labels)
        if self.dense is not None:
            given = self.dense(given)
        return crop(self.layers(given[:, :, None, None]), self.height, self.width)


class DCGANDiscriminator(nn.Module):
    """The mirror image: strided convolutions, leaky rectifiers, normalisation but in the first layer.

    `dense` is the width of a fully connected layer after the last grid. The last of the features is what the logit is
    computed from; flattened, it has `num_features` numbers.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int,
        num_classes: int = 0,
        normalisation: Normalisation = "batch",
        dense: int = 0,
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        doublings, base_height, base_width = pyramid(height, breadth, largest_base=7)
        self.size = (base_height * 2**doublings, base_width * 2**doublings)
        first = nn.Conv2d(channels, width, 4, 2, 1) if doublings else nn.Conv2d(channels, width, 3, 1, 1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(SLOPE, True)]
        hidden = width
        for _ in range(doublings - 1):
            layers += [
                nn.Conv2d(hidden, 2 * hidden, 4, 2, 1, bias=normalisation == "none"),
                *_normalise(normalisation, 2 * hidden),
                nn.LeakyReLU(SLOPE, True),
            ]
            hidden *= 2
        self.layers = nn.Sequential(*layers)
        on_grid = hidden * base_height * base_width
        self.dense = _dense(on_grid, dense, after=nn.LeakyReLU(SLOPE, True)) if dense else None
        self.num_features = dense or on_grid
        self.head = Projection(self.num_features, num_classes)
        self.apply(_initialise)
        nn.init.normal_(self.head.linear.weight, 0.0, 0.02)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        features = (self.layers(pad(items, *self.size)),)
        if self.dense is not None:
            features += (self.dense(features[0].flatten(1)),)
        return Verdict((self.head(features[-1].flatten(1), labels),), features)
