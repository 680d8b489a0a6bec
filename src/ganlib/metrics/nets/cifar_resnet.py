"""The small residual networks for CIFAR-10."""

from typing import ClassVar, Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NUM_CLASSES = 10

Layer = Literal["pool", "logits"]


@final
class CifarResNet(nn.Module):
    """A residual network of 6n + 2 layers for 32 × 32 pixels. He et al. 2015, arXiv:1512.03385, section 4.2.

    Shortcuts have no parameters (option A): every second pixel, and zeros for the new channels. `num_blocks` is n: 3
    for ResNet-20, 9 for ResNet-56. Input: colours with the mean and deviation of ImageNet.
    """

    LAYERS: ClassVar[tuple[str, ...]] = ("pool", "logits")

    def __init__(self, num_blocks: int, *, layer: Layer = "pool") -> None:
        super().__init__()
        self.layer = layer
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16) for _ in range(num_blocks)))
        self.layer2 = nn.Sequential(_Block(16, 32), *(_Block(32, 32) for _ in range(num_blocks - 1)))
        self.layer3 = nn.Sequential(_Block(32, 64), *(_Block(64, 64) for _ in range(num_blocks - 1)))
        self.linear = nn.Linear(64, NUM_CLASSES)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        maps = F.relu(self.bn1(self.conv1(images)))
        pooled = self.layer3(self.layer2(self.layer1(maps))).mean((2, 3))
        return self.linear(pooled) if self.layer == "logits" else pooled


@final
class _Block(nn.Module):
    """Two convolutions beside a shortcut; halves the size where it doubles the channels."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.stride, self.new_channels = channels_out // channels_in, channels_out - channels_in
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps[:, :, :: self.stride, :: self.stride]
        half = self.new_channels // 2
        shortcut = F.pad(shortcut, (0, 0, 0, 0, half, half))
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps))))) + shortcut)
