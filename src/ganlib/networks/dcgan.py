"""DCGAN: strided convolutions with batch normalisation. Radford et al. 2015, arXiv:1511.06434, figure 1, section 3."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.networks.parts import SLOPE, Projection, WithClass, crop, pad, pyramid


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class DCGANGenerator(nn.Module):
    """A 4 x 4 grid (or the size's own) doubled by transposed convolutions; rectifiers; tanh. Cropped to any size."""

    def __init__(self, shape: Sequence[int], *, latent: int, width: int, num_classes: int = 0) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, base_height, base_width = pyramid(self.height, self.width, largest_base=7)
        self.condition = WithClass(num_classes, latent)
        hidden = width * 2 ** max(doublings - 1, 0)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent + self.condition.width, hidden, (base_height, base_width), bias=False)
        ]
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
        return crop(self.layers(self.condition(latent, labels)[:, :, None, None]), self.height, self.width)


class DCGANDiscriminator(nn.Module):
    """The mirror image: strided convolutions, leaky rectifiers, batch normalisation but in the first layer."""

    def __init__(self, shape: Sequence[int], *, width: int, num_classes: int = 0) -> None:
        super().__init__()
        channels, height, breadth = shape
        doublings, base_height, base_width = pyramid(height, breadth, largest_base=7)
        self.size = (base_height * 2**doublings, base_width * 2**doublings)
        first = nn.Conv2d(channels, width, 4, 2, 1) if doublings else nn.Conv2d(channels, width, 3, 1, 1)
        layers: list[nn.Module] = [first, nn.LeakyReLU(SLOPE, True)]
        hidden = width
        for _ in range(doublings - 1):
            layers += [
                nn.Conv2d(hidden, 2 * hidden, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * hidden),
                nn.LeakyReLU(SLOPE, True),
            ]
            hidden *= 2
        self.layers = nn.Sequential(*layers)
        self.head = Projection(hidden * base_height * base_width, num_classes)
        self.apply(_initialise)
        nn.init.normal_(self.head.linear.weight, 0.0, 0.02)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        features = self.layers(pad(items, *self.size))
        return Verdict((self.head(features.flatten(1), labels),), (features,))
