"""Latent tools: walks close, projections find what the generator made, directions are those that were planted."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganlib import GAN, recipes
from ganlib.core import Spec
from ganlib.data import load
from ganlib.errors import UsageError
from ganlib.latents.directions import Method, directions, moved
from ganlib.latents.mix import mixed
from ganlib.latents.project import Search, _starts, feature_distance, maps_for, project
from ganlib.latents.space import Latents, Space, Styles, items_at, random_points, space_of
from ganlib.latents.walk import closed_walk, walk
from ganlib.metrics.features import quantise
from ganlib.model import Model
from ganlib.networks.fastgan import FastGANGenerator
from ganlib.networks.mlp import MLPGenerator
from ganlib.networks.progressive import ProgressiveGenerator
from ganlib.networks.stylegan2 import StyleGAN2Generator
from latent_models import Linearly, of_generator, of_recipe


def lively(latent: int = 6, classes: int = 0) -> Model:
    """An untrained perceptron whose pictures differ much."""
    torch.manual_seed(1)
    network = MLPGenerator((1, 8, 8), latent=latent, widths=(32, 32), num_classes=classes)
    for layer in network.layers:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 3
    return of_generator(network, latent, classes=classes)


def styled(classes: int = 0) -> Model:
    torch.manual_seed(2)
    network = StyleGAN2Generator((1, 16, 16), latent=8, width=8, widest=16, mapping_layers=2, num_classes=classes)
    return of_generator(network, 8, (1, 16, 16), classes)


def orthogonal(size: int, rng: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=rng))[0]


def test_a_closed_walk_passes_its_keys_at_even_steps_and_ends_a_step_before_its_beginning():
    space = space_of(lively())
    points, condition = closed_walk(space, 3, 5, seed=4)
    assert isinstance(space, Latents) and condition is None and points.shape == (15, 6)
    keys = space.model.sampler.latents(3, 4)
    torch.testing.assert_close(points[::5], keys)
    for number in range(3):
        leg = torch.cat([points, points[:1]])[5 * number : 5 * number + 6]
        unit = leg / leg.norm(dim=1, keepdim=True)
        angles = torch.arccos(
            (keys[number] @ keys[(number + 1) % 3]) / keys[number].norm() / keys[(number + 1) % 3].norm()
        )
        between = torch.arccos((unit[:-1] * unit[1:]).sum(1).clamp(-1, 1))
        assert float(between.sum()) == pytest.approx(float(angles), abs=1e-3), "the shortest way"


def test_a_walk_through_styles_is_straight_and_of_one_class():
    space = space_of(styled(classes=3))
    assert isinstance(space, Styles)
    points, condition = closed_walk(space, 2, 4, seed=4, label=torch.tensor([2]))
    latents = space.model.sampler.latents(2, 4)
    ends = space.network.mapping(latents, torch.tensor([2, 2]))
    torch.testing.assert_close(points[[0, 4]], ends)
    torch.testing.assert_close(points[2], ends.mean(0))
    torch.testing.assert_close(points[5], points[3])  # back the same way
    assert condition is not None and condition.tolist() == [2] * 8
    made = items_at(space, ends, torch.tensor([2, 2]))
    torch.testing.assert_close(made, space.model.sampler.run(latents, torch.tensor([2, 2])))


def test_the_class_of_a_walk_is_that_of_its_first_item():
    space = space_of(lively(classes=5))
    drawn = space.model.sampler.labels(8, 3)
    for first in (0, 5, 7):
        _, condition = walk(space, [first, 2], 4, seed=3)
        assert condition is not None and condition.tolist() == [int(drawn[first])] * 4


def test_truncated_walks_stay_within_the_limit():
    points, _ = closed_walk(space_of(lively()), 4, 3, seed=0, truncation=0.5)
    assert float(points[::3].abs().max()) <= 0.5


@pytest.mark.parametrize(("keys", "steps"), [(1, 4), (3, 0)])
def test_a_walk_without_ways_is_refused(keys: int, steps: int):
    with pytest.raises(UsageError, match="at least 2 keys and 1 step"):
        closed_walk(space_of(lively()), keys, steps, seed=0)


SHORT = Search(num_steps=80, num_random=200)


def found_in(space: Space, reals: Tensor, labels: Tensor | None = None, search: Search = SHORT):
    every = list(project(space, reals, labels, search))
    assert [each is not None for each in every] == ([False] * search.num_steps + [True]) * len(reals)
    return [each for each in every if each is not None]


def test_a_picture_that_the_generator_made_is_found_again():
    space = space_of(lively())
    hidden, _ = random_points(space, 3, 99, None)
    reals = quantise(items_at(space, hidden, None))
    for each, real in zip(found_in(space, reals), reals, strict=True):
        assert each.found.features < 0.1 * each.best_random.features < each.mean.features
        assert each.found.psnr > each.best_random.psnr + 15 > each.mean.psnr
        torch.testing.assert_close(items_at(space, each.point[None], None)[0], each.item)
        shown = np.rint(each.item.numpy() * 127.5 + 127.5).clip(0, 255)
        error = np.square(shown - (real.numpy() * 127.5 + 127.5)).mean()
        assert each.found.psnr == pytest.approx(10 * math.log10(255**2 / float(error)), abs=0.01)


def test_the_class_of_a_picture_is_found_or_taken_as_given():
    space = space_of(lively(classes=4))
    hidden, classes = random_points(space, 4, 99, torch.tensor([2, 0, 3, 3]))
    assert classes is not None
    reals = quantise(items_at(space, hidden, classes))
    assert [each.label for each in found_in(space, reals)] == [2, 0, 3, 3]
    given = found_in(space, reals[:2], torch.tensor([1, 0]))
    assert [each.label for each in given] == [1, 0]
    assert given[1].found.features < 0.1 < given[0].found.features, "of another class it cannot be made"


def test_each_class_is_tried_from_its_nearest_point():
    distances, classes = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0]), torch.tensor([0, 1, 1, 2, 0])
    assert _starts(distances, classes, False).tolist() == [1, 0, 3]
    assert _starts(distances, classes, True).tolist() == _starts(distances, None, False).tolist() == [1, 2, 0, 4]


def test_what_the_search_began_with_and_the_mean_are_said_as_they_are():
    space, search = space_of(lively(classes=2)), Search(num_steps=1, num_random=70, seed=5)
    real = quantise(torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    (each,) = found_in(space, real, torch.tensor([1]), search)
    items = space.model.sampler.run(space.model.sampler.latents(70, 5), torch.ones(70, dtype=torch.long))
    maps = maps_for(1).maps
    apart = [float(feature_distance(maps(item[None]), maps(real))) for item in items]
    assert each.best_random.features == pytest.approx(min(apart), rel=0.01)
    mean = quantise(items.mean(0, keepdim=True))
    assert each.mean.features == pytest.approx(float(feature_distance(maps(mean), maps(real))), rel=1e-4)
    assert each.mean.psnr == pytest.approx(10 * math.log10(4 / float((mean - real).square().mean())), rel=1e-4)


def test_the_feature_distance_is_a_share_of_the_real_maps(rng: torch.Generator):
    made, real = torch.rand(3, 2, 8, 8, generator=rng), torch.rand(1, 2, 8, 8, generator=rng)
    maps = maps_for(2).maps
    distances = feature_distance(maps(made), maps(real))
    for item in range(3):
        pairs = list(zip(maps(made[item : item + 1]), maps(real), strict=True))
        wanted = np.mean([float((f - r).abs().sum() / r.abs().sum()) for f, r in pairs])
        assert float(distances[item]) == pytest.approx(wanted, rel=1e-5)
    assert float(feature_distance(maps(real), maps(real))) == 0


def test_the_pull_keeps_latents_where_they_usually_lie():
    space = space_of(lively())
    noise = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    norms = []
    for pull in (0.0, 3.0):
        (each,) = found_in(space, noise, search=Search(100, 100, rate=0.3, pull=pull))
        norms.append(abs(float(each.point.norm()) / math.sqrt(6) - 1))
    assert norms[1] < 0.3 * norms[0]


def test_styles_of_each_stage_reach_what_one_style_does_not():
    space = space_of(styled(), "styles")
    assert isinstance(space, Styles)
    points, _ = random_points(space, 2, 99, None)
    real = quantise(mixed(space, points[:1], points[1:], 2, None)[0])
    (all_stages,) = found_in(space, real)
    (one,) = found_in(space_of(styled(), "style"), real)
    assert all_stages.point.shape == (3 * 8,) and one.point.shape == (8,)
    assert all_stages.found.features < 0.5 * one.found.features < one.best_random.features


def test_the_estimator_projects_arrays_of_the_kind_it_was_trained_on():
    gan = GAN(recipes.find("r3")(network="mlp", width=16, latent=8), device="cpu").fit(
        "digits", items=64, progress="none"
    )
    digits = load("digits").take(np.arange(3))[:, 0]
    found = gan.project(digits, [1, 2, 3], steps=5)
    assert found.items.shape == (3, 8, 8) and found.items.dtype == np.uint8
    assert found.kind == "latent" and found.points.shape == (3, 8) and found.labels is not None
    assert found.labels.tolist() == [1, 2, 3]
    assert np.abs(gan.predict(found.points, [1, 2, 3]).astype(int) - found.items).max() <= 1
    again = gan.project(digits, [1, 2, 3], steps=5)
    assert np.array_equal(found.points, again.points)
    with pytest.raises(UsageError, match="1 step"):
        gan.project(digits, steps=0)


def planted(rng: torch.Generator, scales: list[float], outputs: int = 40) -> tuple[Tensor, Tensor]:
    """A matrix of given singular values, and its right singular vectors as rows, the strongest first."""
    right = orthogonal(len(scales), rng)
    left = orthogonal(outputs, rng)[:, : len(scales)]
    return left @ torch.diag(torch.tensor(scales)) @ right, right


def assert_same_lines(found: Tensor, wanted: Tensor, above: float = 0.999) -> None:
    assert found.shape == wanted.shape
    assert float((found * wanted).sum(1).abs().min()) > above


@pytest.mark.parametrize(("method", "above"), [("sefa", 0.9999), ("pca", 0.97)])
def test_directions_are_the_singular_vectors_of_the_first_layer(method: Method, above: float, rng: torch.Generator):
    weight, right = planted(rng, [8.0, 5.0, 3.0, 1.5, 0.5])
    model = of_generator(Linearly(weight, torch.randn(64, 40, generator=rng), (1, 8, 8)), 5)
    found = directions(space_of(model), 3, method)
    assert_same_lines(found.vectors, right[:3], above)
    torch.testing.assert_close(found.strengths, torch.tensor([64.0, 25.0, 9.0]), rtol=0.1, atol=0)
    torch.testing.assert_close(found.deviations, torch.ones(3), rtol=0.1, atol=0)
    assert bool((found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all())


def test_directions_that_change_nothing_are_left_out(rng: torch.Generator):
    weight, right = planted(rng, [2.0, 1.0, 0.0, 0.0])
    model = of_generator(Linearly(weight, torch.randn(64, 40, generator=rng), (1, 8, 8)), 4)
    methods: tuple[Method, ...] = ("sefa", "pca")
    for method in methods:
        assert_same_lines(directions(space_of(model), 9, method).vectors, right[:2], 0.97)


def test_the_first_layer_is_found_behind_the_class_and_the_norm(rng: torch.Generator):
    """Its other columns take the embedding of the class; the norm multiplies all columns by the same."""
    torch.manual_seed(3)
    fast = FastGANGenerator((1, 16, 16), latent=5, width=8, num_classes=3)
    plain = next(layer for layer in fast.modules() if isinstance(layer, nn.ConvTranspose2d)).weight[:5].flatten(1).T
    growing = ProgressiveGenerator((1, 16, 16), latent=5, width=8, num_classes=3)
    normed = growing.linear.weight[:, :5]
    for network, weight in ((fast, plain), (growing, normed)):
        found = directions(space_of(of_generator(network, 5, (1, 16, 16), classes=3)), 5)
        _, values, right = torch.linalg.svd(weight.detach().double())
        assert_same_lines(found.vectors, right.float())
        torch.testing.assert_close(
            found.strengths / found.strengths[0], (values / values[0]).square().float(), rtol=1e-3, atol=0
        )


def test_directions_of_styles_are_those_of_all_affine_layers_together():
    space = space_of(styled())
    assert isinstance(space, Styles)
    network = space.network
    layers = [network.first, *network.doublings, *network.seconds]
    affines = [layer.conv.affine.weight for layer in layers] + [layer.affine.weight for layer in network.to_items]  # type: ignore[union-attr]
    stacked = torch.cat([weight / math.sqrt(8) for weight in affines])
    _, values, right = torch.linalg.svd(stacked)
    found = directions(space, 3)
    assert_same_lines(found.vectors, right[:3])
    torch.testing.assert_close(found.strengths, values[:3].square(), rtol=1e-4, atol=0)
    points, _ = random_points(space, 1000, 0, None)
    torch.testing.assert_close(found.deviations, (points @ right[:3].T).std(0), rtol=1e-4, atol=0)
    components = directions(space, 3, "pca")
    covariance = torch.cov(points.T)
    torch.testing.assert_close(
        covariance @ components.vectors.T, components.vectors.T * components.strengths, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(components.deviations.square(), components.strengths, rtol=1e-3, atol=0)


def test_a_moved_point_goes_through_itself_in_units_of_the_spread():
    space = space_of(styled())
    found = directions(space, 2)
    point = random_points(space, 1, 3, None)[0][0]
    points = moved(found, point, torch.tensor([-3.0, 0.0, 1.0]))
    assert points.shape == (2, 3, 8)
    torch.testing.assert_close(points[:, 1], point.expand(2, -1))
    torch.testing.assert_close((points[:, 2] - point).norm(dim=1), found.deviations)
    torch.testing.assert_close(points[:, 0] - point, -3 * (points[:, 2] - point))


def test_mixed_pictures_take_each_stage_of_the_one_that_lends_it():
    space = space_of(styled(), "styles")
    assert isinstance(space, Styles)
    points, _ = random_points(space, 5, 7, None)
    made = mixed(space, points[:2], points[2:], 1, None)
    assert made.shape == (2, 3, 1, 16, 16)
    style = space.network.mapping(space.model.sampler.latents(5, 7), None)
    for row in range(2):
        for column in range(3):
            own = torch.stack([style[row], style[2 + column], style[2 + column]])[:, None]
            torch.testing.assert_close(made[row, column], space.network.synthesis(own)[0], rtol=1e-4, atol=1e-5)
    for first in (0, 3):
        with pytest.raises(UsageError, match="accepted are 1 to 2"):
            mixed(space, points[:2], points[2:], first, None)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_of_latents_can_be_looked_into(name: str, conditional: bool):
    function, tiny = recipes.find(name), dict(width=8, latent=4, batch_items=4)
    accepted = inspect.signature(function).parameters
    asked = function(**{key: value for key, value in tiny.items() if key in accepted})
    spec = Spec("image", (3, 16, 16), classes=("a", "b", "c"))
    try:
        model = of_recipe(asked, spec, conditional=conditional)
    except UsageError as error:
        pytest.skip(f"not for such data: {error}")
    if not model.plan.task.draws:
        with pytest.raises(UsageError, match=f"recipe {name} .*ganlib predict"):
            space_of(model)
        return
    space = space_of(model)
    found = directions(space, 2)
    assert len(found.vectors) >= 1 and bool(found.vectors.isfinite().all()) and float(found.strengths[0]) > 0
    reals = torch.zeros(1, 3, 16, 16)
    (each,) = found_in(space, reals, torch.tensor([1]) if conditional else None, Search(3, 64))
    assert bool(each.item.isfinite().all()) and each.found.features <= each.best_random.features * 1.05
