"""Pictures in tiles: what is made of them is what is made of the whole where it can be, and has no seams elsewhere."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib import tiling
from ganlib.core import Condition
from ganlib.networks.routed import RoutedGenerator
from ganlib.networks.superres import EnlargingGenerator
from ganlib.networks.translator import TranslatingGenerator
from ganlib.networks.unet import UNetGenerator
from ganlib.sampling import Sampler
from ganlib.tasks.enlarge import Enlarge
from ganlib.tasks.unpaired import Cycle
from ganlib.tiling import MARGIN, OVERLAP, RAMP, cuts, in_tiles


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("side", [256, 640, 1024])
def test_tiles_cover_every_length_and_none_is_too_large(side: int) -> None:
    for length in [*range(1, 3000, 7), 100_003]:
        found = cuts(length, side)
        assert found[0][0] == 0 and found[-1][1] == length and all(end - start <= side for start, end in found)
        assert all(before[1] - after[0] == OVERLAP for before, after in itertools.pairwise(found))
        assert all(start % tiling.ALIGN == 0 for start, _ in found)
        assert len(found) <= 1 + -(-length // (side - OVERLAP - tiling.ALIGN)), "no more than are needed"


@pytest.mark.parametrize("shape", [(257, 300), (700, 40), (513, 701)])
@pytest.mark.parametrize("scale", [1, 3])
def test_what_is_only_enlarged_comes_out_as_it_is(shape: tuple[int, int], scale: int) -> None:
    given = pictures(2, 3, *shape)
    made = in_tiles(lambda x: F.interpolate(x, scale_factor=float(scale)), given, scale=scale, side=256)
    assert torch.allclose(made, F.interpolate(given, scale_factor=float(scale)), atol=1e-6)


@pytest.mark.parametrize("way", [2, 3])
@pytest.mark.parametrize("distance", [-MARGIN, MARGIN, -MARGIN - 1, MARGIN + 1])
def test_a_pixel_may_depend_on_others_as_far_away_as_the_margin(way: int, distance: int) -> None:
    def moved(x: Tensor) -> Tensor:
        """Each pixel is what lies so far away, and 0 where the tile ends."""
        made, inner = torch.zeros_like(x), x.shape[way] - abs(distance)
        made.narrow(way, max(distance, 0), inner).copy_(x.narrow(way, max(-distance, 0), inner))
        return made

    given = pictures(1, 1, 600, 500)
    same = torch.allclose(in_tiles(moved, given, scale=1, side=256), moved(given), atol=1e-6)
    assert same == (abs(distance) <= MARGIN)


def convolutional() -> nn.Module:
    return nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(1, 4, 7), nn.ReLU(), nn.Conv2d(4, 1, 5, padding=2), nn.Tanh())


@torch.no_grad()
@pytest.mark.parametrize(
    ("scale", "make"),
    [
        (1, convolutional),
        (1, lambda: TranslatingGenerator(1, 1, width=2, blocks=2, downsamplings=2, normalisation="none")),
        (1, lambda: UNetGenerator(1, 1, width=2, depth=3, normalisation="batch").eval()),
        (4, lambda: EnlargingGenerator(1, scale=4, width=4, growth=2, blocks=2)),
    ],
    ids=["convolutions", "translator", "u-net", "superres"],
)
def test_tiles_of_networks_with_a_bounded_field_are_the_whole(scale: int, make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network, given = make(), pictures(1, 1, 320, 384)
    for weight in network.parameters():
        if weight.ndim == 4:
            nn.init.kaiming_normal_(weight, nonlinearity="linear")  # so that what is far away is felt
    whole, tiled = network(given), in_tiles(network, given, scale=scale, side=256)
    assert tiled.shape == whole.shape and torch.allclose(tiled, whole, atol=1e-5)
    assert whole.std() > 0.01


def test_tiles_that_differ_are_mixed_without_a_seam() -> None:
    """A generator that paints the mean of what it sees, as instance normalisation depends on it."""
    given = torch.linspace(0, 1, 900).expand(1, 1, 300, -1)
    means: list[float] = []

    def painted(x: Tensor) -> Tensor:
        means.append(float(x.mean()))
        return x.mean().expand_as(x)

    made = in_tiles(painted, given, scale=1, side=256)
    step = max(abs(a - b) for a in means for b in means if abs(a - b) < 0.3)
    assert 0 < (made.diff(dim=3).abs().max()) <= step / RAMP * 1.01
    assert made.diff(dim=2).abs().max() < 1e-6 and abs(made[0, 0, 0, 0] - min(means)) < 1e-6


class Watched(nn.Module):
    """Nearest neighbours, and the sizes that it was given."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.seen: list[tuple[int, int]] = []

    def forward(self, items: Tensor, condition: Condition = None) -> Tensor:
        assert condition is None or len(condition) == len(items)
        self.seen.append((items.shape[2], items.shape[3]))
        return F.interpolate(items, scale_factor=float(self.scale))


@pytest.mark.parametrize(("scale", "side"), [(1, 1024), (2, 1024), (4, 512), (16, 256)])
def test_no_call_sees_or_makes_more_than_its_share(scale: int, side: int) -> None:
    network = Watched(scale)
    sampler = Sampler(Enlarge(lambda: network, lambda: network, scale), network, "cpu")
    height, width = (side + 100, 2 * side) if scale < 8 else (300, 280)
    given = pictures(1, 1, height, width)
    made = sampler.transformed(given, None)
    assert torch.allclose(made, F.interpolate(given, scale_factor=float(scale)), atol=1e-6)
    assert len(network.seen) > 2 and max(rows * columns for rows, columns in network.seen) <= side**2
    network.seen.clear()
    sampler.transformed(pictures(1, 1, side // 2, 2 * side), None)
    assert (side // 2, 2 * side) in network.seen, "no more pixels than one call may see: not tiled"


def test_small_pictures_are_made_as_ever() -> None:
    network = Watched(1)
    Sampler(Cycle(lambda: network, lambda: network), network, "cpu").transformed(
        pictures(70, 1, 24, 24), torch.arange(70) % 2
    )
    assert network.seen == [(24, 24)] * 2


def test_each_tile_knows_where_a_translation_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "SIDE", 256)
    torch.manual_seed(0)
    network = RoutedGenerator(convolutional).eval()
    sampler = Sampler(Cycle(lambda: network, lambda: network), network, "cpu", (0.5, 0.5))
    given = pictures(2, 1, 300, 280)
    with torch.no_grad():
        whole, other = (network(given, torch.tensor(target)) for target in ([1, 0], [0, 1]))
    made = sampler.transformed(given, torch.tensor([1, 0]))
    assert torch.allclose(made, whole, atol=1e-6) and not torch.allclose(whole, other, atol=0.01)
