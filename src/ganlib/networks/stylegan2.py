"""The style-based networks without artefacts: modulated convolutions, sums of pictures, a residual discriminator.

Written from Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", arXiv:1912.04958
(figures 2 and 7, section 2 and appendix B), and Karras et al. 2019, arXiv:1812.04948, for the mapping network
and mixing.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Verdict
from ganlib.networks.equalised import (
    GAIN,
    Blur,
    ClassLatent,
    ClassLogit,
    EqualConv,
    EqualLinear,
    equalised,
    widths_up_to,
)
from ganlib.networks.minibatch import MinibatchDeviation
from ganlib.networks.parts import SLOPE, crop, pad, pyramid

MAPPING_RATE = 0.01
"""The mapping network learns so much slower than the rest."""


class ModulatedConv(nn.Module):
    """y_o = Σ_i w_oi s_i * x_i, with s = A(w) and, where it demodulates, divided by √(Σ_ik (s_i w_oik)² + 1e-8).

    The paper's equations 1 and 3. Scaling the input by s and the output by the divisor is the same as scaling the
    weights, item by item, and leaves one convolution for the whole batch. `double` is a transposed convolution and a
    blur.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, *, demodulate: bool = True, double: bool = False
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = EqualLinear(style, inputs, bias=1.0)
        self.blur = Blur(padding=1, gain=4.0) if double else None

    def forward(
        self, x: Float[Tensor, "batch inputs h w"], style: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch outputs h2 w2"]:
        scale, weight = self.affine(style), equalised(self.weight, 1.0)
        x = x * scale.to(x.dtype)[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return x
        norm = (F.linear(scale.square(), weight.square().sum((2, 3))) + 1e-8).rsqrt()
        return x * norm.to(x.dtype)[:, :, None, None]


class StyledConv(nn.Module):
    """A modulated convolution, noise of a learned strength, a bias, a leaky rectifier times √2.

    Fresh noise while training; in evaluation a buffer drawn once, so that an item is a function of its latent.
    """

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, style: int, size: tuple[int, int], *, double: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style, double=double)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.randn(1, 1, *size))

    def forward(
        self, x: Float[Tensor, "batch inputs h w"], style: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch outputs h2 w2"]:
        x = self.conv(x, style)
        noise = torch.randn(len(x), *self.noise.shape[1:], device=x.device) if self.training else self.noise
        x = x + (noise * self.strength).to(x.dtype) + self.bias.to(x.dtype)[:, None, None]
        return F.leaky_relu(x, SLOPE) * GAIN


class Mapping(nn.Module):
    """From the normalised latent, beside its class, to the style that every convolution is scaled by."""

    def __init__(self, latent: int, style: int, num_layers: int, num_classes: int) -> None:
        super().__init__()
        self.given = ClassLatent(num_classes, latent)
        widths = [latent + self.given.width, *[style] * num_layers]
        self.layers = nn.ModuleList(
            EqualLinear(a, b, gain=GAIN, rate=MAPPING_RATE) for a, b in itertools.pairwise(widths)
        )

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch style"]:
        x = self.given(latent, labels)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return x


class StyleGAN2Generator(nn.Module):
    """A learned base grid, two styled convolutions a stage, and the sum of a picture from each stage, doubled between.

    `width` channels in the finest stage, twice as many in each coarser one, up to `widest`; the paper has 32 and 512 at
    1024 x 1024. `mixing` is the share of training items whose finer stages, from a random one on, take the style of
    another latent (of the same class). `shift` is added to the style: the path length is measured by it. No tanh:
    decoding clamps. Other sizes begin at their own base grid and are cropped.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        latent: int,
        width: int,
        widest: int = 512,
        mapping_layers: int = 8,
        mixing: float = 0.9,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        channels, self.height, self.width = shape
        doublings, *base = pyramid(self.height, self.width)
        widths = widths_up_to(doublings, width, widest)
        sizes = [(base[0] * 2**stage, base[1] * 2**stage) for stage in range(doublings + 1)]
        self.mixing = mixing
        self.mapping = Mapping(latent, latent, mapping_layers, num_classes)
        self.basis = nn.Parameter(torch.randn(widths[0], *base))
        self.first = StyledConv(widths[0], widths[0], latent, sizes[0])
        self.doublings = nn.ModuleList(
            StyledConv(a, b, latent, size, double=True)
            for (a, b), size in zip(itertools.pairwise(widths), sizes[1:], strict=True)
        )
        self.seconds = nn.ModuleList(
            StyledConv(w, w, latent, size) for w, size in zip(widths[1:], sizes[1:], strict=True)
        )
        self.to_items = nn.ModuleList(ModulatedConv(w, channels, 1, latent, demodulate=False) for w in widths)
        self.biases = nn.ParameterList(torch.zeros(channels) for _ in widths)

    @property
    def num_stages(self) -> int:
        return len(self.to_items)

    def forward(
        self,
        latent: Float[Tensor, "batch latent"],
        labels: Int[Tensor, " batch"] | None = None,
        shift: Float[Tensor, "batch latent"] | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        style = self.mapping(latent, labels)
        styles = style.expand(self.num_stages, *style.shape)
        if self.training and self.mixing > 0:
            other = self.mapping(torch.randn_like(latent), labels)
            mixed = torch.rand(len(latent), device=latent.device) < self.mixing
            first = torch.randint(1, self.num_stages + 1, (len(latent),), device=latent.device)
            stage = torch.arange(self.num_stages, device=latent.device)[:, None]
            styles = torch.where((mixed & (stage >= first))[:, :, None], other, styles)
        if shift is not None:
            styles = styles + shift
        return self.synthesis(styles)

    def synthesis(self, styles: Float[Tensor, "stages batch style"]) -> Float[Tensor, "batch channels height width"]:
        """Pictures from the style of each stage, the coarsest first."""
        x = self.basis.expand(styles.shape[1], *self.basis.shape).contiguous(memory_format=torch.channels_last)
        x = self.first(x, styles[0])
        items = self._picture(x, styles, 0)
        for stage, (doubling, second) in enumerate(zip(self.doublings, self.seconds, strict=True), 1):
            x = second(doubling(x, styles[stage]), styles[stage])
            # Bilinear is the blurred doubling of the convolutions, but for the edge, which it repeats.
            larger = F.interpolate(items, scale_factor=2, mode="bilinear", align_corners=False)
            items = larger + self._picture(x, styles, stage)
        return crop(items, self.height, self.width)

    def _picture(self, x: Tensor, styles: Tensor, stage: int) -> Tensor:
        picture = self.to_items[stage](x, styles[stage])
        return picture + self.biases[stage].to(picture.dtype)[:, None, None]


class ResidualHalving(nn.Module):
    """Two 3x3 convolutions, the second halving the size, plus a halving 1x1; their sum over √2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3)
        # √2 after the rectifier times 1/√2 of the sum is 1: both stand in the gains of the weights, for speed.
        self.second = EqualConv(inputs, outputs, 3, gain=1.0, halve=True)
        self.skip = EqualConv(inputs, outputs, 1, gain=GAIN / 2, bias=False, halve=True)

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        y = F.leaky_relu(self.first(x), SLOPE)
        return F.leaky_relu(self.second(y), SLOPE) + self.skip(x)


class StyleGAN2Discriminator(nn.Module):
    """Residual halvings down to the base grid, minibatch deviation, a convolution, two linear layers.

    Minibatch deviation makes a logit depend on the other items of its group.
    """

    def __init__(self, shape: Sequence[int], *, width: int, widest: int = 512, num_classes: int = 0) -> None:
        super().__init__()
        channels, height, breadth = shape
        doublings, *base = pyramid(height, breadth)
        self.size = (base[0] * 2**doublings, base[1] * 2**doublings)
        widths = widths_up_to(doublings, width, widest)[::-1]
        self.from_item = EqualConv(channels, widths[0], 1)
        self.halvings = nn.ModuleList(ResidualHalving(a, b) for a, b in itertools.pairwise(widths))
        self.deviation = MinibatchDeviation()
        self.over_grid = EqualConv(widths[-1] + 1, widths[-1], 3)
        self.linear = EqualLinear(widths[-1] * base[0] * base[1], widths[-1], gain=GAIN)
        self.head = ClassLogit(widths[-1], num_classes)

    def forward(
        self, items: Float[Tensor, "batch channels height width"], labels: Int[Tensor, " batch"] | None = None
    ) -> Verdict:
        x = F.leaky_relu(self.from_item(pad(items, *self.size)), SLOPE)
        for halving in self.halvings:
            x = halving(x)
        x = F.leaky_relu(self.over_grid(self.deviation.as_map(x)), SLOPE)
        features = F.leaky_relu(self.linear(x.flatten(1)), SLOPE)
        return Verdict((self.head(features, labels),), (features,))
