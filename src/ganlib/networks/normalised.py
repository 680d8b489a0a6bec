"""What the networks from pictures to pictures share: normalisation by name, sizes that halve, weights at the start."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.networks.parts import pad

Normalisation = Literal["batch", "instance", "none"]
"""Over the batch, with gain and bias; :class:`InstanceNorm`; or none."""


class InstanceNorm(nn.Module):
    """(x - mean) / √(variance + 10⁻⁵) over the places of each channel and item. Ulyanov et al. 2016, arXiv:1607.08022.

    It is group normalisation with one channel in each group. On a processor that is up to twice as fast as
    ``nn.InstanceNorm2d``, which goes through batch normalisation. Elsewhere that has not been measured.
    """

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        if x.device.type != "cpu":
            return F.instance_norm(x)
        # For channels-last its kernel takes two to twenty times as long.
        return F.group_norm(x.contiguous(), x.shape[1])


def normalised(layer: nn.Module, kind: Normalisation, channels: int) -> list[nn.Module]:
    """The layer and the normalisation of its `channels`."""
    match kind:
        case "batch":
            return [layer, nn.BatchNorm2d(channels)]
        case "instance":
            return [layer, InstanceNorm()]
        case "none":
            return [layer]


def initialise(network: nn.Module) -> None:
    """Weights from N(0, 0.02²), gains from N(1, 0.02²), biases zero, as in pix2pix and all that follow it."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def pad_to_multiple(
    items: Float[Tensor, "batch channels height width"], multiple: int, least: int = 1
) -> Float[Tensor, "batch channels rows columns"]:
    """The picture in the centre of the smallest whose sides are multiples, none under `least`, its edge repeated."""
    rows, columns = (-(-max(side, least) // multiple) * multiple for side in items.shape[2:])
    return pad(items, rows, columns)
