"""Extractors: what they compute, that they repeat, and what they refuse."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganlib.errors import DataError, UsageError
from ganlib.metrics.features import (
    FeatureExtractor,
    ModuleFeatures,
    Pixels,
    RandomConvolutions,
    VectorFeatures,
    features,
    quantise,
)
from ganlib.metrics.scores import frechet_distance


@pytest.fixture
def images(rng: torch.Generator) -> Tensor:
    return torch.rand(7, 3, 12, 10, generator=rng) * 2 - 1


def small_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))


EXTRACTORS: list[FeatureExtractor] = [
    Pixels(None),
    Pixels(4),
    RandomConvolutions(),
    ModuleFeatures(small_module(), "small"),
]


def test_quantise_keeps_the_256_levels_and_rounds_all_else_to_them() -> None:
    levels = (torch.arange(256) - 127.5) / 127.5
    assert quantise(levels).equal(levels)
    fine = torch.linspace(-1.5, 1.5, 10_001)
    rounded = quantise(fine)
    assert set(rounded.tolist()) == set(levels.tolist())
    assert (rounded - fine.clamp(-1, 1)).abs().max() <= 0.5 / 127.5 + 1e-6
    assert quantise(rounded).equal(rounded)
    assert quantise(torch.tensor([math.nan])).isnan().all()
    assert quantise(torch.tensor([-math.inf, math.inf])).tolist() == [-1, 1]


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=lambda extractor: extractor.name)
def test_an_extractor_is_a_function_of_each_item_alone(extractor: FeatureExtractor, images: Tensor) -> None:
    rows = features(extractor, [images])
    assert rows.shape[0] == 7 and rows.ndim == 2 and rows.dtype == torch.float64 and not rows.requires_grad
    torch.testing.assert_close(features(extractor, [images.flip(0)]), rows.flip(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features(extractor, [images[2:3]]), rows[2:3], rtol=1e-4, atol=1e-5)
    before = torch.get_rng_state()
    assert features(extractor, [images]).equal(rows)
    assert torch.get_rng_state().equal(before)
    assert len(extractor.digest()) == 64 and extractor.digest() == extractor.digest()
    assert extractor.name
    assert (rows.requires_grad_() * 2).sum().requires_grad  # not a tensor of the inference mode


@pytest.mark.parametrize("cuts", [[7], [1] * 7, [3, 4], [5, 0, 2]])
def test_how_the_caller_cuts_batches_changes_no_bit(images: Tensor, cuts: list[int]) -> None:
    expected = features(RandomConvolutions(), [images], batch_items=3)
    assert features(RandomConvolutions(), iter(images.split(cuts)), batch_items=3).equal(expected)


def test_batches_reach_the_extractor_in_one_size(images: Tensor) -> None:
    seen: list[int] = []

    class Counting(FeatureExtractor):
        name = "counting"  # pyright: ignore

        def digest(self) -> str:
            return ""

        def __call__(self, items: Tensor) -> Tensor:
            seen.append(len(items))
            return items.flatten(1)

    def batches() -> Iterator[Tensor]:
        yield from images.split([2, 4, 1])

    features(Counting(), batches(), batch_items=3)
    assert seen == [3, 3, 1]


def test_pixels_are_the_values_and_their_averages(images: Tensor) -> None:
    assert Pixels(None)(images).equal(images.flatten(1))
    assert Pixels(16)(images).equal(images.flatten(1))
    square = images[:, :, :, :8]  # 12 × 8
    torch.testing.assert_close(Pixels(4)(square), F.avg_pool2d(square, (3, 2)).flatten(1))
    assert Pixels(11)(images).shape == (7, 3 * 11 * 10)


def test_pixels_average_over_exact_areas_where_sizes_do_not_divide(images: Tensor) -> None:
    """Each pixel repeated 5 × 5 and then averaged over 12 × 10: the same areas in whole pixels."""
    repeated = images.repeat_interleave(5, 2).repeat_interleave(5, 3)
    torch.testing.assert_close(Pixels(5)(images), F.avg_pool2d(repeated, (12, 10)).flatten(1))
    # A pattern of alternate columns is grey once it is too small to see; without antialiasing it is black or white.
    stripes = torch.ones(1, 1, 8, 8)
    stripes[..., 1::2] = -1
    assert Pixels(4)(stripes).abs().max() == 0


def test_random_convolutions_are_those_of_their_seed() -> None:
    digest = RandomConvolutions(seed=0).digest()
    assert digest == RandomConvolutions(seed=0).digest() == GOLDEN
    others = [RandomConvolutions(seed=1), RandomConvolutions(width=16), RandomConvolutions(channels_in=1)]
    assert len({digest, *(other.digest() for other in others)}) == 4
    assert not others[0].weights[0].equal(RandomConvolutions(seed=0).weights[0])


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 5, 9), (3, 32, 32), (3, 64, 48)])
def test_random_convolutions_take_any_size_from_four(shape: tuple[int, ...], rng: torch.Generator) -> None:
    rows = RandomConvolutions()(torch.rand(5, *shape, generator=rng) * 2 - 1)
    assert rows.shape == (5, 256) and rows.isfinite().all()
    assert rows[:, :64].std(0).min() > 1e-3 and 0.01 < rows.abs().mean() < 10


def test_random_convolutions_are_the_written_network(rng: torch.Generator) -> None:
    """Two depths by explicit layers: mean and deviation of the maps before and after pooling."""
    images = torch.rand(2, 1, 6, 6, generator=rng)
    extractor = RandomConvolutions(seed=4, channels_in=1, width=3, depth=2)
    convolutions = [nn.Conv2d(1, 3, 3, 1, 1, bias=False, padding_mode="replicate")]
    convolutions.append(nn.Conv2d(3, 3, 3, 1, 1, bias=False, padding_mode="replicate"))
    for convolution, weight in zip(convolutions, extractor.weights, strict=True):
        convolution.weight.data = weight
    first = nn.LeakyReLU(0.2)(convolutions[0](images))
    second = nn.LeakyReLU(0.2)(convolutions[1](nn.AvgPool2d(2)(first)))
    flat = [maps.flatten(2) for maps in (first, second)]
    expected = torch.cat([part for maps in flat for part in (maps.mean(2), maps.var(2, correction=0).sqrt())], 1)
    torch.testing.assert_close(extractor(images), expected)


def test_random_convolutions_see_blur_and_noise(rng: torch.Generator) -> None:
    images = F.avg_pool2d(torch.rand(600, 3, 20, 20, generator=rng) * 2 - 1, 3, 1, 1)
    real, fresh = images[:300], images[300:]
    blurred = F.avg_pool2d(fresh, 3, 1, 1)
    noisy = fresh + 0.1 * torch.randn(fresh.shape, generator=rng)
    extractor = RandomConvolutions(width=16)
    base, *worse = (
        frechet_distance(features(extractor, [quantise(real)]), features(extractor, [quantise(fake)]))
        for fake in (fresh, blurred, noisy)
    )
    assert min(worse) > 3 * base


def test_module_features_are_in_evaluation_mode_and_without_gradient(images: Tensor) -> None:
    module = small_module()
    extractor = ModuleFeatures(module, "small")
    statistics = {key: value.clone() for key, value in module.state_dict().items()}
    module.train()
    rows = extractor(images)
    assert not rows.requires_grad and rows.shape == (7, 4 * 10 * 8)
    assert rows.equal(extractor(images))  # no dropout
    assert all(value.equal(statistics[key]) for key, value in module.state_dict().items())  # no running means moved


def test_the_digest_of_a_module_changes_with_any_weight() -> None:
    module = small_module()
    digest = ModuleFeatures(module, "small").digest()
    assert digest == ModuleFeatures(small_module(), "small").digest()
    assert digest != ModuleFeatures(module, "other").digest()
    with torch.no_grad():
        next(module.parameters())[0, 0, 0, 0] += 1e-6
    assert digest != ModuleFeatures(module, "small").digest()
    half = small_module().to(torch.bfloat16)
    assert digest != ModuleFeatures(half, "small").digest()


def test_vectors_are_their_columns(rng: torch.Generator) -> None:
    columns = torch.randn(9, 4, generator=rng)
    assert features(VectorFeatures(), columns.split(4)).equal(columns.double())


def test_unusable_items_are_refused(images: Tensor) -> None:
    with pytest.raises(DataError, match="no items"):
        features(Pixels(4), [])
    with pytest.raises(DataError, match="no items"):
        features(Pixels(4), [images[:0]])
    with pytest.raises(DataError, match="accepted are images"):
        Pixels(4)(images[0])
    with pytest.raises(DataError, match="at least 4 x 4"):
        RandomConvolutions()(images[..., :3])
    with pytest.raises(DataError, match="1 channels"):
        RandomConvolutions()(images[:, :1])
    with pytest.raises(DataError, match="columns"):
        VectorFeatures()(images)
    with pytest.raises(DataError, match="two"):
        ModuleFeatures(nn.Flatten(0), "two")(images)
    with pytest.raises(UsageError, match="side=0"):
        Pixels(0)
    with pytest.raises(UsageError, match="width=0"):
        RandomConvolutions(width=0)
    with pytest.raises(UsageError, match="batch_items=0"):
        features(Pixels(4), [images], batch_items=0)


GOLDEN = "2406e8c18270cc5dd6a2d68bed4f4fdff71c078e3b19ada4b8a59e36d47f4da2"
"""Of seed 0 and three channels. It differs only if the network has changed; scores are then new ones."""
