"""Distances of pictures from the wanted ones, against torchmetrics and by hand."""

import math

import pytest
import torch

from ganlib.errors import DataError
from ganlib.metrics.features import RandomConvolutions
from ganlib.metrics.paired import content_kept, map_distance, signal_to_noise, structural_similarity


def pictures(channels: int = 3, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.randn(4, channels, 6, 7, generator=rng), (24, 29), mode="bilinear")
    return smooth.clamp(-1, 1)


def test_signal_to_noise_of_a_known_error() -> None:
    real = pictures()
    assert torch.allclose(signal_to_noise(real + 0.1, real), torch.full((4,), 10 * math.log10(4 / 0.01)).double())
    assert torch.equal(signal_to_noise(real, real), torch.full((4,), 100.0).double())


@pytest.mark.parametrize("channels", [1, 3])
def test_structural_similarity_is_that_of_torchmetrics(channels: int) -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    real, rng = pictures(channels), torch.Generator().manual_seed(1)
    made = (real + 0.2 * torch.randn(real.shape, generator=rng)).clamp(-1, 1)
    measure = functional.structural_similarity_index_measure
    found = measure(made.double(), real.double(), data_range=2.0, reduction="none", return_full_image=True)
    expected = found[1][..., 5:-5, 5:-5].flatten(1).mean(1)  # where windows lie within the picture
    assert torch.allclose(structural_similarity(made, real), expected, atol=1e-6)
    assert torch.allclose(structural_similarity(real, real), torch.ones(4).double())


def test_structural_similarity_needs_room_for_its_window() -> None:
    with pytest.raises(DataError, match="at least 11"):
        structural_similarity(torch.zeros(1, 1, 8, 20), torch.zeros(1, 1, 8, 20))


def test_map_distance_by_hand() -> None:
    """Of orthogonal unit vectors it is 2 at each depth, of parallel ones 0 whatever their length."""

    def maps(items: torch.Tensor) -> list[torch.Tensor]:
        return [items, items.flip(1)]

    right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    up = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    assert map_distance(maps, right, up).item() == pytest.approx(4.0)
    assert map_distance(maps, right, 7 * right).item() == pytest.approx(0.0)


def test_map_distance_grows_with_the_change() -> None:
    real, maps = pictures(), RandomConvolutions(channels_in=3).maps
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(real.shape, generator=rng)
    near, far = (map_distance(maps, real + share * noise, real) for share in (0.05, 0.3))
    assert bool((near < far).all()) and bool((near > 0).all())


def test_content_is_found_again_under_another_style_and_not_in_other_content() -> None:
    """Inverted contrast, another brightness and a little noise keep the content; pictures in another order do not."""
    maps, real, rng = RandomConvolutions(channels_in=3).maps, pictures(), torch.Generator().manual_seed(1)
    assert content_kept(maps, real, 0.5 * real + 0.3).all()
    assert content_kept(maps, real, (real + 0.1 * torch.randn(real.shape, generator=rng)).clamp(-1, 1)).all()
    assert not content_kept(maps, real, real.roll(1, 0)).any()
    mixed = torch.stack([real[0], real[2], real[1], real[3]])
    assert content_kept(maps, real, mixed).tolist() == [True, False, False, True]


def test_content_that_is_gone_is_found_by_chance() -> None:
    maps, rng = RandomConvolutions(channels_in=1).maps, torch.Generator().manual_seed(0)
    given, made = (torch.randn(200, 1, 16, 16, generator=rng).clamp(-1, 1) for _ in range(2))
    assert int(content_kept(maps, given, made).sum()) <= 6  # 1 expected; more than 6 has a chance of 1e-4
