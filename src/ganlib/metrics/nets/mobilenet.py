"""MobileNet-v1, with parameters named as in Keras."""

from typing import ClassVar, Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Channels and stride of the thirteen separable convolutions, at a multiplier of 1."""

MIN_SIDE = 32

Layer = Literal["pool", "logits"]


@final
class MobileNetV1(nn.Module):
    """MobileNet-v1, Howard et al. 2017, arXiv:1704.04861: each convolution is one by channel and one of 1 × 1.

    `multiplier` thins all layers. A trunk that is not `complete` ends with the last convolution by channel and has no
    logits. Strided convolutions pad as TensorFlow's SAME does. Input: values in [-1, 1].
    """

    LAYERS: ClassVar[tuple[str, ...]] = ("pool", "logits")

    def __init__(self, multiplier: float, *, complete: bool = True, layer: Layer = "pool") -> None:
        super().__init__()
        self.layer = layer
        channels = int(32 * multiplier)
        self._add("conv1", _Same(3, channels, 3, 2, bias=False))
        for number, (width, stride) in enumerate(STAGES, start=1):
            self._add(f"conv_dw_{number}", _Same(channels, channels, 3, stride, groups=channels, bias=False))
            if complete or number < len(STAGES):
                self._add(f"conv_pw_{number}", nn.Conv2d(channels, int(width * multiplier), 1, bias=False))
                channels = int(width * multiplier)
        if complete:
            self.add_module("conv_preds", nn.Conv2d(channels, 1000, 1))

    def _add(self, name: str, convolution: nn.Conv2d) -> None:
        self.add_module(name, convolution)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(convolution.out_channels, eps=1e-3))
        self.add_module(f"{name}_relu", nn.ReLU6())

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        maps = images
        for name, layer in self.named_children():
            if name != "conv_preds":
                maps = layer(maps)
            elif self.layer == "logits":
                maps = layer(maps.mean((2, 3), keepdim=True))
        return maps.mean((2, 3))


@final
class _Same(nn.Conv2d):
    """Padded as TensorFlow does: the output has ceil(size / stride) pixels, and the odd pixel of padding comes last."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        (top, bottom), (left, right) = (_padding(size, kernel, stride) for size in input.shape[2:])
        return super().forward(F.pad(input, (left, right, top, bottom)))


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
