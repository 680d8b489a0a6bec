"""One seed is one sequence of items, however many are asked for at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ganlib.networks.compact import CompactGenerator
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.sampling import CHUNK_ITEMS, Sampler, chunk_items, slerp, truncated
from ganlib.tasks.generate import Generate
from ganlib.training.runtime import seed_of

SHARE = (0.6, 0.3, 0.1)


def sampler(num_classes: int = 0, *, family: str = "mlp", at_once: int = CHUNK_ITEMS) -> Sampler:
    def generator() -> nn.Module:
        if family == "mlp":
            return MLPGenerator((3,), latent=5, widths=(6,), num_classes=num_classes, batch_norm=True)
        return CompactGenerator((1, 8, 8), latent=5, width=4, num_classes=num_classes)

    task = Generate(generator, lambda: MLPDiscriminator((3,), widths=(6,)), 5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = task.networks()[0]
    return Sampler(task, network.eval(), "cpu", SHARE if num_classes else (), at_once)


def draw(made: Sampler, num_items: int, seed: int = 0, **options) -> Tensor:
    return torch.cat([items for items, _ in made.stream(num_items, seed=seed, **options)])


def drawn_labels(made: Sampler, num_items: int, seed: int = 0, **options) -> Tensor:
    parts = [labels for _, labels in made.stream(num_items, seed=seed, **options)]
    return torch.cat([part for part in parts if part is not None])


@pytest.mark.parametrize("family", ["mlp", "compact"])
@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("at_once", [CHUNK_ITEMS, 3 * CHUNK_ITEMS])
def test_the_first_items_of_a_seed_are_the_same_however_many_are_drawn(at_once: int, num_classes: int, family: str):
    made = sampler(num_classes, family=family, at_once=at_once)
    many = draw(made, 2 * at_once + 5)
    assert len(many) == 2 * at_once + 5
    for count in (1, CHUNK_ITEMS - 1, CHUNK_ITEMS, CHUNK_ITEMS + 1, at_once, at_once + 1):
        assert torch.equal(draw(made, count), many[:count])
    assert torch.equal(draw(made, 9), draw(made, 9))
    assert not torch.equal(draw(made, 9, seed=1), draw(made, 9))
    assert len(many.flatten(1).unique(dim=0)) == len(many), "an item was drawn twice"


def test_the_stream_is_the_generator_of_its_latents_and_labels():
    made = sampler(3)
    latents, labels = made.latents(CHUNK_ITEMS + 7, 4), made.labels(CHUNK_ITEMS + 7, 4)
    assert torch.equal(drawn_labels(made, CHUNK_ITEMS + 7, seed=4), labels)
    assert torch.equal(made.run(latents, labels), draw(made, CHUNK_ITEMS + 7, seed=4))
    with torch.no_grad():
        torch.testing.assert_close(made.generator(latents, labels), draw(made, CHUNK_ITEMS + 7, seed=4))


def test_the_stream_comes_in_chunks_and_makes_none_before_it_is_asked_for():
    made, calls = sampler(), []
    made.generator.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    stream = made.stream(3 * CHUNK_ITEMS - 10, seed=0)
    assert calls == []
    sizes = [len(items) for items, _ in stream]
    assert sizes == [CHUNK_ITEMS, CHUNK_ITEMS, CHUNK_ITEMS - 10]
    assert calls == [CHUNK_ITEMS] * 3, "another batch size may round differently"


def test_small_items_are_run_more_at_once_on_the_same_latents_and_labels():
    assert [chunk_items(shape) for shape in ((20,), (1, 8, 8), (65,), (3, 8, 8))] == [512, 512, 64, 64]
    plain, wide = sampler(3), sampler(3, at_once=4 * CHUNK_ITEMS)
    sizes: list[int] = []
    wide.generator.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    count, given = 4 * CHUNK_ITEMS + 9, torch.tensor([2, 0, 1, 1, 0])
    torch.testing.assert_close(draw(wide, count), draw(plain, count))
    torch.testing.assert_close(draw(wide, count, labels=given), draw(plain, count, labels=given))
    assert torch.equal(drawn_labels(wide, count), drawn_labels(plain, count))
    assert torch.equal(drawn_labels(wide, count, labels=given), drawn_labels(plain, count, labels=given))
    assert torch.equal(draw(wide, 9), wide.run(wide.latents(9, 0), wide.labels(9, 0)))
    assert set(sizes) == {4 * CHUNK_ITEMS}, "another batch size may round differently"


@pytest.mark.parametrize("at_once", [CHUNK_ITEMS, 2 * CHUNK_ITEMS])
def test_parts_make_up_the_whole(at_once: int):
    made, count = sampler(3, at_once=at_once), 5 * CHUNK_ITEMS + 3
    parts = [list(made.stream(count, seed=2, part=(rank, 2))) for rank in range(2)]
    dealt = [parts[k % 2][k // 2] for k in range(len(parts[0]) + len(parts[1]))]
    assert torch.equal(torch.cat([items for items, _ in dealt]), draw(made, count, seed=2))


def test_each_chunk_of_latents_has_a_seed_of_its_own():
    """What is drawn for a seed must not change: a fresh generator for every 64 items, whatever is drawn before."""
    made = sampler(3)
    for number in (2, 0, 1):
        rng = torch.Generator().manual_seed(seed_of(7, "latent", number))
        expected = torch.randn(CHUNK_ITEMS, 5, generator=rng)
        assert torch.equal(made.latents(192, 7)[64 * number : 64 * number + 64], expected)
        rng = torch.Generator().manual_seed(seed_of(7, "label", number))
        classes = torch.multinomial(torch.tensor(SHARE), CHUNK_ITEMS, replacement=True, generator=rng)
        assert torch.equal(made.labels(192, 7)[64 * number : 64 * number + 64], classes)


@pytest.mark.parametrize("count", [1, CHUNK_ITEMS - 1, CHUNK_ITEMS, CHUNK_ITEMS + 3])
def test_running_given_latents_does_not_depend_on_their_neighbours(count: int):
    made = sampler(3)
    latents, labels = made.latents(count, 0), made.labels(count, 0)
    whole = made.run(latents, labels)
    assert whole.shape == (count, 3) and not whole.requires_grad
    assert torch.equal(whole[-1:], made.run(latents[-1:], labels[-1:]))


def test_given_labels_are_taken_in_turn_across_chunks():
    made = sampler(3)
    labels = drawn_labels(made, CHUNK_ITEMS + 6, labels=torch.tensor([2, 0, 1, 1, 0]))
    assert labels.tolist() == [[2, 0, 1, 1, 0][k % 5] for k in range(CHUNK_ITEMS + 6)]
    ones = draw(made, 4, labels=torch.tensor([1]))
    assert torch.equal(ones, made.run(made.latents(4, 0), torch.ones(4, dtype=torch.long)))


def test_labels_are_drawn_as_often_as_in_the_data():
    made, count = sampler(3), 6400
    labels = made.labels(count, 0)
    observed = torch.bincount(labels, minlength=3).double()
    expected = torch.tensor(SHARE).double() * count
    chi_squared = float(((observed - expected).square() / expected).sum())
    assert chi_squared < 13.8, "two degrees of freedom: once in a thousand"
    assert not torch.equal(labels, made.labels(count, 1))
    assert torch.equal(labels[:100], made.labels(100, 0))


def test_without_classes_there_are_no_labels():
    assert all(labels is None for _, labels in sampler().stream(3, seed=0))


def test_drawing_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    draw(sampler(3), 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_latents_are_standard_normal():
    latents = sampler().latents(4000, 0)
    assert float(latents.mean()) == pytest.approx(0, abs=0.03)
    assert float(latents.std()) == pytest.approx(1, abs=0.03)
    assert float(latents.flatten()[:-5].mul(latents.flatten()[5:]).mean()) == pytest.approx(0, abs=0.03)


@given(st.floats(0.05, 6))
def test_truncation_keeps_the_order_and_the_limit(limit: float):
    latent = torch.linspace(-9, 9, 301)[:, None]
    cut = truncated(latent, limit)
    assert cut.dtype == latent.dtype and float(cut.abs().max()) <= limit * (1 + 1e-6)
    assert bool((cut.diff(dim=0) >= 0).all())
    torch.testing.assert_close(cut, -cut.flip(0), atol=1e-5, rtol=0)
    assert bool((cut.abs() <= latent.abs() + 1e-5).all())


def test_a_truncated_normal_has_the_variance_of_the_book():
    """Var = 1 - 2 a φ(a) / (2 Φ(a) - 1) for the normal distribution between -a and a."""
    limit = 1.5
    cut = truncated(torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0)), limit)
    density = math.exp(-(limit**2) / 2) / math.sqrt(2 * math.pi)
    expected = 1 - 2 * limit * density / math.erf(limit / math.sqrt(2))
    assert float(cut.var()) == pytest.approx(expected, rel=0.01)
    normal = torch.tensor([[-2.0, 0.0, 0.5]])
    torch.testing.assert_close(truncated(normal, 50.0), normal)


def test_truncation_moves_the_same_latents():
    made = sampler()
    cut, whole = made.latents(70, 0, truncation=1.0), made.latents(70, 0)
    assert torch.equal(cut, truncated(whole, 1.0)) and float(cut.abs().max()) <= 1
    assert torch.equal(draw(made, 70, truncation=1.0), made.run(cut, None))


def test_slerp_goes_from_end_to_end_at_even_angles_on_the_sphere():
    rng = torch.Generator().manual_seed(0)
    start, end = torch.randn(16, generator=rng), torch.randn(16, generator=rng)
    start, end = 4 * start / start.norm(), 4 * end / end.norm()
    path = slerp(start, end, 9)
    torch.testing.assert_close(path[0], start)
    torch.testing.assert_close(path[-1], end)
    torch.testing.assert_close(path.norm(dim=1), torch.full((9,), 4.0))
    cosines = (path[:-1] * path[1:]).sum(1) / 16
    torch.testing.assert_close(cosines, cosines[:1].expand(8))
    torch.testing.assert_close(slerp(end, start, 9), path.flip(0))


def test_slerp_between_a_right_angle_and_between_equals():
    path = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 3)
    torch.testing.assert_close(path[1], torch.tensor([0.5, 0.5]).sqrt())
    same = torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(slerp(same, same, 4), same.expand(4, 3))
    torch.testing.assert_close(slerp(same, 3 * same, 3)[1], 2 * same)
    assert bool(slerp(torch.zeros(3), same, 3).isfinite().all())
