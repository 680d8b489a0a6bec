"""Layers of the growing and the style-based networks: equalised learning rate, pixel norm, blur.

Karras et al. 2018, arXiv:1710.10196, section 4 and appendix A; Karras et al. 2020, arXiv:1912.04958, section 4.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

GAIN = math.sqrt(2)
"""Keeps the second moment through a rectifier (He et al. 2015, arXiv:1502.01852)."""


def equalised(weight: Tensor, gain: float) -> Tensor:
    """gain / √fan-in · w, with w ~ N(0, 1) at the start: Adam then moves every layer by the same share of its scale."""
    return weight * (gain / math.sqrt(weight[0].numel()))


class EqualLinear(nn.Module):
    """A linear layer with :func:`equalised` weights, which learn `rate` times as fast as those of other layers."""

    def __init__(
        self, inputs: int, outputs: int, *, gain: float = 1.0, bias: float | None = 0.0, rate: float = 1.0
    ) -> None:
        super().__init__()
        self.gain, self.rate = gain * rate, rate
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / rate))

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        return F.linear(x, equalised(self.weight, self.gain), None if self.bias is None else self.bias * self.rate)


class EqualConv(nn.Module):
    """A convolution with :func:`equalised` weights that keeps the size; `halve` blurs and takes every other pixel."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, gain: float = GAIN, bias: bool = True, halve: bool = False
    ) -> None:
        super().__init__()
        self.gain, self.padding, self.stride = gain, 0 if halve else kernel // 2, 1 + halve
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        # The blur takes every pixel although under a 1x1 convolution every other would do: depthwise convolutions with
        # a stride are slow in bfloat16 on a processor.
        self.blur = Blur(padding=(kernel + 1) // 2) if halve else None

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        x = self.blur(x) if self.blur is not None else x
        return F.conv2d(x, equalised(self.weight, self.gain), self.bias, self.stride, self.padding)


class Blur(nn.Module):
    """The filter [1, 3, 3, 1] in both directions, channel by channel, with sum `gain`; zeros beyond the edge."""

    kernel: Tensor

    def __init__(self, *, padding: int, gain: float = 1.0) -> None:
        super().__init__()
        self.padding = padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", gain * torch.outer(taps, taps) / taps.sum() ** 2, persistent=False)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h2 w2"]:
        kernel = self.kernel.expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, padding=self.padding, groups=x.shape[1])


def pixel_norm(x: Float[Tensor, "batch channels *pixels"]) -> Float[Tensor, "batch channels *pixels"]:
    """x / √(mean over channels of x² + 1e-8). Karras et al. 2018, arXiv:1710.10196, section 4.2."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class ClassLatent(nn.Module):
    """The latent on the unit sphere of mean square 1; with classes, an embedding of its class so scaled beside it."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width if num_classes else 0
        self.embedding = EqualLinear(num_classes, width, bias=None) if num_classes else None

    def forward(
        self, latent: Float[Tensor, "batch latent"], labels: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch width"]:
        latent = pixel_norm(latent)
        if self.embedding is None:
            return latent
        hot = F.one_hot(_required(labels), self.num_classes).to(latent.dtype)
        return torch.cat([latent, pixel_norm(self.embedding(hot))], 1)


class ClassLogit(nn.Module):
    """logit = w·h + b, and + e(class)·h where there are classes: Miyato & Koyama 2018, arXiv:1802.05637."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = EqualLinear(num_features, 1)
        self.classes = EqualLinear(num_features, num_classes, bias=None) if num_classes else None

    def forward(
        self, features: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, " batch"]:
        logits = self.linear(features)
        if self.classes is not None:
            logits = logits + self.classes(features).gather(1, _required(labels)[:, None])
        return logits.squeeze(1)


def _required(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("this network was built with classes: pass labels, integers [batch]")
    return labels


def widths_up_to(doublings: int, finest: int, widest: int) -> list[int]:
    """Channels of each stage from the base grid up: `finest` in the last, twice as many in each before, to `widest`."""
    return [min(widest, finest * 2 ** (doublings - stage)) for stage in range(doublings + 1)]
