"""From picture to picture by residual blocks at a coarser size: CycleGAN's generator, and what CUT compares in it.

Johnson et al. 2016, arXiv:1603.08155; Zhu et al. 2017 (CycleGAN), arXiv:1703.10593; Park et al. 2020 (CUT),
arXiv:2007.15651.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Draws
from ganlib.networks.normalised import Normalisation, initialise, normalised, pad_to_multiple
from ganlib.networks.parts import crop


def downsamplings_for(height: int, width: int) -> int:
    """How many halvings suit a size: the most, of two, that leave six places on the shorter side."""
    return min(2, max(0, math.floor(math.log2(min(height, width) / 6))))


class BlurredHalving(nn.Module):
    """The filter [1, 2, 1] / 4 in both directions at every other pixel. Zhang 2019, arXiv:1904.11486.

    It is two means over 2 x 2: depthwise convolutions with a stride are slow in bfloat16 on a processor.
    """

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h2 w2"]:
        return F.avg_pool2d(F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="reflect"), 2, 1), 2)


class ResidualBlock(nn.Module):
    """x + two 3 x 3 convolutions of x, each normalised, with a rectifier between."""

    def __init__(self, width: int, normalisation: Normalisation) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, bias=normalisation == "none") for _ in range(2))
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *normalised(first, normalisation, width),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            *normalised(second, normalisation, width),
        )

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        return x + self.layers(x)


class TranslatingBody(nn.Module):
    """From a picture to a map of its size with `width` channels: all of the generator but its last layer.

    A 7 x 7 convolution, `downsamplings` halvings that double the width, `blocks` residual blocks, as many doublings.
    `antialiased` blurs where it halves, and interpolates where it doubles. Sides are multiples of `multiple`, `least`
    or more. Without `first_normalised` the first layer has a bias and no normalisation.
    """

    def __init__(
        self,
        channels_in: int,
        *,
        width: int = 64,
        blocks: int = 9,
        downsamplings: int = 2,
        antialiased: bool = False,
        normalisation: Normalisation = "instance",
        first_normalised: bool = True,
    ) -> None:
        super().__init__()
        self.channels_in, self.multiple = channels_in, 2**downsamplings
        self.least = max(4, 2 * self.multiple)  # reflection repeats less than the side
        # Blocks 1 and 5 of 9, as CUT; of fewer the same share.
        self.feature_blocks = sorted({1, max(1, round(5 * blocks / 9))})
        self.widths = [width * 2**level for level in range(downsamplings + 1)]
        bias, pairs = normalisation == "none", [*itertools.pairwise(self.widths)]
        kind: Normalisation = normalisation if first_normalised else "none"
        first = nn.Conv2d(channels_in, width, 7, bias=kind == "none")
        self.first = nn.Sequential(nn.ReflectionPad2d(3), *normalised(first, kind, width), nn.ReLU())
        self.halvings, self.after_halvings = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in pairs:
            convolution = nn.Conv2d(inputs, outputs, 3, 1 if antialiased else 2, 1, bias=bias)
            layer, *norm = normalised(convolution, normalisation, outputs)
            self.halvings.append(layer)
            self.after_halvings.append(nn.Sequential(*norm, nn.ReLU(), *([BlurredHalving()] if antialiased else [])))
        self.blocks = nn.ModuleList(ResidualBlock(self.widths[-1], normalisation) for _ in range(blocks))
        doublings: list[nn.Module] = []
        for outputs, inputs in reversed(pairs):
            if antialiased:  # the linear interpolation is the filter [1, 3, 3, 1] of Zhang 2019, the edge repeated
                doublings.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
                layer = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=bias)
            else:
                layer = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1, bias=bias)
            doublings += [*normalised(layer, normalisation, outputs), nn.ReLU()]
        self.doublings = nn.Sequential(*doublings)
        self.antialiased = antialiased

    def forward(self, items: Float[Tensor, "batch channels_in h w"]) -> Float[Tensor, "batch width h w"]:
        return self.doublings(self.encode(items, len(self.blocks))[0])

    def encode(
        self, items: Float[Tensor, "batch channels_in h w"], num_blocks: int
    ) -> tuple[Float[Tensor, "batch widest h2 w2"], tuple[Tensor, ...]]:
        """The map after so many blocks, and those of the features that lie before."""
        features, x = [items], self.first(items)
        for halving, after in zip(self.halvings, self.after_halvings, strict=True):
            features.append(halving(x))
            x = after(features[-1])
        for number, block in enumerate(list(self.blocks)[:num_blocks], 1):
            x = block(x)
            if number in self.feature_blocks:
                features.append(x)
        return x, tuple(features)


class TranslatingGenerator(nn.Module):
    """CycleGAN's generator: the body and a 7 x 7 convolution to a picture; tanh. Any size: padded, and cropped back.

    The paper has 9 blocks for 256 pixels and 6 for 128. Padding is by reflection, but zeros in the halvings and
    doublings, as in the authors' code. Convolutions have no bias where normalisation would undo it.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        width: int = 64,
        blocks: int = 9,
        downsamplings: int = 2,
        antialiased: bool = False,
        normalisation: Normalisation = "instance",
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"a translating network of {blocks} residual blocks; accepted is 1 or more")
        self.body = TranslatingBody(
            channels_in,
            width=width,
            blocks=blocks,
            downsamplings=downsamplings,
            antialiased=antialiased,
            normalisation=normalisation,
        )
        self.last = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, channels_out, 7))
        initialise(self)

    def forward(
        self, items: Float[Tensor, "batch channels_in height width"]
    ) -> Float[Tensor, "batch channels_out height width"]:
        return crop(torch.tanh(self.last(self.body(self._padded(items)))), *items.shape[2:])

    def features(self, items: Float[Tensor, "batch channels_in height width"]) -> tuple[Tensor, ...]:
        """What CUT compares, by the encoder alone: five maps with two halvings and three blocks or more.

        The padded picture, the convolution of each halving before its normalisation, the residual blocks 1 and 5 of 9;
        of fewer blocks the second is that at the same share, unless it is the first.
        """
        return self.body.encode(self._padded(items), self.body.feature_blocks[-1])[1]

    def with_features(
        self, items: Float[Tensor, "batch channels_in height width"]
    ) -> tuple[Float[Tensor, "batch channels_out height width"], tuple[Tensor, ...]]:
        """The translated picture and the features of the given one, in one pass."""
        x, features = self.body.encode(self._padded(items), len(self.body.blocks))
        return crop(torch.tanh(self.last(self.body.doublings(x))), *items.shape[2:]), features

    def feature_shapes(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """The channels, rows and columns of each of the features, of pictures of a size."""
        body = self.body
        rows, columns = (-(-max(side, body.least) // body.multiple) * body.multiple for side in (height, width))
        shapes = [(body.channels_in, rows, columns)]
        for level, channels in enumerate(body.widths[1:]):
            halved = level if body.antialiased else level + 1  # an antialiased convolution comes before its halving
            shapes.append((channels, rows // 2**halved, columns // 2**halved))
        inner = (body.widths[-1], rows // body.multiple, columns // body.multiple)
        return (*shapes, *[inner] * len(body.feature_blocks))

    def _padded(self, items: Tensor) -> Tensor:
        return pad_to_multiple(items, self.body.multiple, self.body.least)


class PatchProjection(nn.Module):
    """CUT's heads: of each feature map, what lies at given places, by two layers of `units` to the unit sphere.

    Park et al. 2020, arXiv:2007.15651, section 3.2 and appendix. Places are numbered row by row; give the same to two
    sets of features, and what lies at the same place of both is a positive pair.
    """

    def __init__(self, channels: Sequence[int], *, units: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(count, units), nn.ReLU(), nn.Linear(units, units)) for count in channels
        )
        initialise(self)

    def forward(
        self, features: Sequence[Float[Tensor, "batch _ _ _"]], places: Sequence[Int[Tensor, "batch _"]]
    ) -> tuple[Float[Tensor, "batch patches units"], ...]:
        found = []
        for head, maps, at in zip(self.heads, features, places, strict=True):
            item, columns = torch.arange(len(maps), device=at.device)[:, None], maps.shape[3]
            made = head(maps[item, :, at // columns, at % columns])
            # In bfloat16 a length has two digits.
            found.append(F.normalize(made.to(torch.promote_types(made.dtype, torch.float32)), dim=2))
        return tuple(found)


def draw_places(
    shapes: Sequence[tuple[int, int, int]], *, num_items: int, num_patches: int, draws: Draws, together: int = 1
) -> tuple[Int[Tensor, "batch _"], ...]:
    """Places of feature maps of these shapes, without repetition, for each item its own; all where there are fewer.

    Rows that come `together`, as one of each set, are dealt to processes together; so are their numbers.
    """
    counts, groups = [rows * columns for _, rows, columns in shapes], -(-num_items // together)
    drawn = (draws.uniform(groups, together, count).flatten(0, 1)[:num_items] for count in counts)
    return tuple(numbers.topk(min(num_patches, numbers.shape[1])).indices for numbers in drawn)
