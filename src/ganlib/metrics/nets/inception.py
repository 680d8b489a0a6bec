"""Inception-v3 as the Fréchet Inception distance knows it: the TensorFlow graph of 2015-12-05.

Its parameters bear the names of the public PyTorch port (``pt_inception-2015-12-05-6726825d.pth``).
"""

from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NUM_FEATURES, NUM_LOGITS = 2048, 1008

Layer = Literal["pool", "logits", "logits-unbiased"]


@final
class InceptionV3(nn.Module):
    """Inception-v3, Szegedy et al. 2015, arXiv:1512.00567, with the peculiarities of the graph behind the FID.

    Average pools do not count padding, the last block pools by maximum where the paper averages, and there are 1008
    logits. ``pool`` gives the 2048 features of Heusel et al. 2017, arXiv:1706.08500; ``logits-unbiased`` leaves out the
    last bias, as the published Inception scores do. Input: (level - 128) / 128 at 299 × 299.
    """

    LAYERS: ClassVar[tuple[str, ...]] = ("pool", "logits", "logits-unbiased")

    def __init__(self, layer: Layer = "pool") -> None:
        super().__init__()
        self.layer = layer
        self.Conv2d_1a_3x3 = _Unit(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = _Unit(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = _Unit(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _Unit(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _Unit(80, 192, (3, 3), padded=False)
        self.Mixed_5b = _Wide(192, pool_channels=32)
        self.Mixed_5c = _Wide(256, pool_channels=64)
        self.Mixed_5d = _Wide(288, pool_channels=64)
        self.Mixed_6a = _Reduce(288)
        self.Mixed_6b = _Factorised(768, middle=128)
        self.Mixed_6c = _Factorised(768, middle=160)
        self.Mixed_6d = _Factorised(768, middle=160)
        self.Mixed_6e = _Factorised(768, middle=192)
        self.Mixed_7a = _ReduceFactorised(768)
        self.Mixed_7b = _Expanded(1280, pool="average")
        self.Mixed_7c = _Expanded(2048, pool="maximum")
        self.fc = nn.Linear(NUM_FEATURES, NUM_LOGITS)

    def forward(self, images: Float[Tensor, "batch 3 299 299"]) -> Float[Tensor, "batch features"]:
        maps = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        maps = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(maps, 3, 2)))
        maps = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(maps, 3, 2))))
        maps = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(maps)))))
        pooled = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(maps))).mean((2, 3))
        if self.layer == "pool":
            return pooled
        return F.linear(pooled, self.fc.weight, self.fc.bias if self.layer == "logits" else None)


@final
class _Unit(nn.Module):
    """Convolution, batch normalisation, ReLU. Padded to keep the size, but never where it strides."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: tuple[int, int], *, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded and stride == 1 else 0
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(maps)))


def _average(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)


@final
class _Wide(nn.Module):
    """Figure 5 of the paper, with one 5 × 5 convolution left whole. 35 × 35."""

    def __init__(self, channels_in: int, *, pool_channels: int) -> None:
        super().__init__()
        self.branch1x1 = _Unit(channels_in, 64, (1, 1))
        self.branch5x5_1 = _Unit(channels_in, 48, (1, 1))
        self.branch5x5_2 = _Unit(48, 64, (5, 5))
        self.branch3x3dbl_1 = _Unit(channels_in, 64, (1, 1))
        self.branch3x3dbl_2 = _Unit(64, 96, (3, 3))
        self.branch3x3dbl_3 = _Unit(96, 96, (3, 3))
        self.branch_pool = _Unit(channels_in, pool_channels, (1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(maps))
        three_twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat([self.branch1x1(maps), five, three_twice, self.branch_pool(_average(maps))], 1)


@final
class _Reduce(nn.Module):
    """Figure 10: 35 × 35 to 17 × 17."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.branch3x3 = _Unit(channels_in, 384, (3, 3), stride=2)
        self.branch3x3dbl_1 = _Unit(channels_in, 64, (1, 1))
        self.branch3x3dbl_2 = _Unit(64, 96, (3, 3))
        self.branch3x3dbl_3 = _Unit(96, 96, (3, 3), stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        three_twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat([self.branch3x3(maps), three_twice, F.max_pool2d(maps, 3, 2)], 1)


@final
class _Factorised(nn.Module):
    """Figure 6: 7 × 7 as 1 × 7 and 7 × 1. 17 × 17."""

    def __init__(self, channels_in: int, *, middle: int) -> None:
        super().__init__()
        self.branch1x1 = _Unit(channels_in, 192, (1, 1))
        self.branch7x7_1 = _Unit(channels_in, middle, (1, 1))
        self.branch7x7_2 = _Unit(middle, middle, (1, 7))
        self.branch7x7_3 = _Unit(middle, 192, (7, 1))
        self.branch7x7dbl_1 = _Unit(channels_in, middle, (1, 1))
        self.branch7x7dbl_2 = _Unit(middle, middle, (7, 1))
        self.branch7x7dbl_3 = _Unit(middle, middle, (1, 7))
        self.branch7x7dbl_4 = _Unit(middle, middle, (7, 1))
        self.branch7x7dbl_5 = _Unit(middle, 192, (1, 7))
        self.branch_pool = _Unit(channels_in, 192, (1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(maps)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(maps)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(maps), seven, twice, self.branch_pool(_average(maps))], 1)


@final
class _ReduceFactorised(nn.Module):
    """17 × 17 to 8 × 8."""

    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Unit(channels_in, 192, (1, 1))
        self.branch3x3_2 = _Unit(192, 320, (3, 3), stride=2)
        self.branch7x7x3_1 = _Unit(channels_in, 192, (1, 1))
        self.branch7x7x3_2 = _Unit(192, 192, (1, 7))
        self.branch7x7x3_3 = _Unit(192, 192, (7, 1))
        self.branch7x7x3_4 = _Unit(192, 192, (3, 3), stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(maps))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(maps)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(maps, 3, 2)], 1)


@final
class _Expanded(nn.Module):
    """Figure 7: 1 × 3 and 3 × 1 side by side. 8 × 8."""

    def __init__(self, channels_in: int, *, pool: Literal["average", "maximum"]) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = _Unit(channels_in, 320, (1, 1))
        self.branch3x3_1 = _Unit(channels_in, 384, (1, 1))
        self.branch3x3_2a = _Unit(384, 384, (1, 3))
        self.branch3x3_2b = _Unit(384, 384, (3, 1))
        self.branch3x3dbl_1 = _Unit(channels_in, 448, (1, 1))
        self.branch3x3dbl_2 = _Unit(448, 384, (3, 3))
        self.branch3x3dbl_3a = _Unit(384, 384, (1, 3))
        self.branch3x3dbl_3b = _Unit(384, 384, (3, 1))
        self.branch_pool = _Unit(channels_in, 192, (1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        three = self.branch3x3_1(maps)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(maps))
        pooled = _average(maps) if self.pool == "average" else F.max_pool2d(maps, 3, 1, 1)
        branches = [self.branch1x1(maps), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        branches += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice), self.branch_pool(pooled)]
        return torch.cat(branches, 1)
