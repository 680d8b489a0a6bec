"""Growing: constant over blocks at first, no jump at a boundary, taken up in the middle, the published sizes."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Batch, Plan, Spec
from ganlib.networks.progressive import UNITS, ProgressiveDiscriminator, ProgressiveGenerator, growth_at
from ganlib.recipe import Setting
from ganlib.recipes.progressive import progressive
from ganlib.training import checkpoint
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_facts, to_tensors
from ganlib.training.step import step

TOTAL, SHARE = 8000, 0.5
"""28 x 28 begins at 7 x 7: parts of 1,000 items train 7, fade 14 in, train 14, fade 28 in; at 4,000 all is grown."""


def networks(shape: tuple[int, ...] = (1, 28, 28)) -> tuple[ProgressiveGenerator, ProgressiveDiscriminator]:
    torch.manual_seed(0)
    generator = ProgressiveGenerator(shape, latent=6, width=4, widest=8, growing_share=SHARE).eval()
    return generator, ProgressiveDiscriminator(shape, width=4, widest=8, growing_share=SHARE).eval()


def told(items_seen: int) -> tuple[ProgressiveGenerator, ProgressiveDiscriminator]:
    made = networks()
    for network in made:
        network.grow(items_seen, TOTAL)
    return made


def is_constant_over_blocks(items: Tensor, block: int) -> bool:
    repeated = F.avg_pool2d(items, block).repeat_interleave(block, 2).repeat_interleave(block, 3)
    return bool(torch.allclose(items, repeated, atol=1e-6))


@pytest.mark.parametrize(("items_seen", "block"), [(0, 4), (1000, 4), (1001, 2), (3000, 2), (3001, 1), (8000, 1)])
def test_pictures_are_constant_over_blocks_of_what_has_not_grown(items_seen: int, block: int):
    generator, discriminator = told(items_seen)
    with torch.no_grad():
        items = generator(torch.randn(4, 6))
        assert items.shape == (4, 1, 28, 28)
        assert is_constant_over_blocks(items, block)
        assert block == 4 or not is_constant_over_blocks(items, 2 * block)
        # The discriminator cannot see what is inside a block: there the mean of a change is zero.
        change = torch.randn(4, 1, 28 // block, 28 // block, block**2)
        change = (change - change.mean(-1, keepdim=True)).unflatten(-1, (block, block)).permute(0, 1, 2, 4, 3, 5)
        (plain,), (inside,) = (discriminator(x).logits for x in (items, items + change.reshape(items.shape)))
        torch.testing.assert_close(plain, inside, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("boundary", [1000, 2000, 3000, 4000])
def test_nothing_jumps_at_a_boundary(boundary: int):
    """One item before and after: in total 8e6, so that one item fades 1e-6 of a stage."""
    latent, real = torch.randn(4, 6), torch.randn(4, 1, 28, 28)
    outputs = []
    for items_seen in (boundary * 1000 - 2, boundary * 1000, boundary * 1000 + 2):
        generator, discriminator = networks()
        for network in (generator, discriminator):
            network.grow(items_seen, TOTAL * 1000)
        with torch.no_grad():
            outputs.append((generator(latent), *discriminator(real).logits))
    for before, after in itertools.pairwise(outputs):
        for first, second in zip(before, after, strict=True):
            torch.testing.assert_close(first, second, rtol=0, atol=1e-4)


def test_fading_is_a_line_between_the_old_picture_and_the_new_one():
    latent = torch.randn(3, 6)
    with torch.no_grad():
        old, half, new = (told(items_seen)[0](latent) for items_seen in (1000, 1250, 2000))
    assert not torch.allclose(old, new, atol=1e-2)
    torch.testing.assert_close(half, 0.75 * old + 0.25 * new, rtol=1e-4, atol=1e-5)


def test_the_discriminator_fades_the_pictures_it_is_shown():
    """What is inside the blocks is felt as the share in the picture times the share of the path it enters by."""
    real, detail = torch.randn(4, 1, 28, 28), torch.randn(4, 1, 28, 28)
    detail = detail - F.interpolate(F.avg_pool2d(detail, 4), scale_factor=4)

    def felt(items_seen: int) -> float:
        _, discriminator = told(items_seen)
        with torch.no_grad():
            return float((discriminator(real + detail).logits[0] - discriminator(real).logits[0]).abs().mean())

    assert felt(1000) < 1e-5 < felt(1010) < felt(1100) < felt(2000)
    assert felt(1010) < 0.01 * felt(2000), "a hundredth of a hundredth"


@given(st.integers(0, 6), st.floats(0.05, 1.0), st.integers(0, 10_000), st.integers(0, 500))
def test_growth_is_even_steps_up_to_the_last_doubling(doublings: int, share: float, items_seen: int, more: int):
    now, later = (growth_at(n, 10_000, doublings, share) for n in (items_seen, items_seen + more))
    assert 0 <= now <= later <= doublings * UNITS
    assert later - now <= UNITS * (2 * doublings * more / (share * 10_000)) + 1
    assert growth_at(10_000, 10_000, doublings, share) == doublings * UNITS
    assert growth_at(0, 10_000, doublings, share) == 0


def test_a_network_is_grown_until_it_is_told_and_never_shrinks():
    latent = torch.randn(2, 6)
    with torch.no_grad():
        assert torch.equal(networks()[0](latent), told(TOTAL)[0](latent))
        generator, _ = told(2500)
        made = generator(latent)
        generator.grow(2500, 10 * TOTAL)  # the run has become longer
        assert torch.equal(generator(latent), made)


def make_plan() -> Plan:
    recipe = progressive(width=4, widest=8, latent=4, batch_items=4)
    return recipe.plan(Setting(Spec("image", (1, 16, 16)), 100, "cpu"))


def make_batch(position: int) -> Batch:
    rng = torch.Generator().manual_seed(position)
    return {"real": torch.rand(4, 1, 16, 16, generator=rng) * 2 - 1}


def run(state: State, plan: Plan, numbers: range) -> None:
    for position in numbers:
        step(state, plan, make_batch(position), Runtime(), 0)


def test_a_run_stopped_while_growing_goes_on_bit_by_bit_and_its_samples_are_the_same(tmp_path: Path):
    """80 items, half of them growing in 4 parts of 10: after 4 steps of 4 the second size is a half faded in."""
    plan = make_plan()
    through, stopped = create(plan, Runtime(), 0, 80), create(plan, Runtime(), 0, 80)
    run(through, plan, range(12))
    run(stopped, plan, range(4))
    path = tmp_path / checkpoint.name(stopped.items_seen)
    checkpoint.save(path, to_tensors(stopped), to_facts(stopped))
    resumed = create(plan, Runtime(), 7, 1)
    restore(resumed, *checkpoint.load(path))
    assert 0 < int(resumed.average.growing.growth) < UNITS  # type: ignore[union-attr]
    latent = torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(resumed.average(latent), stopped.average(latent))
    run(resumed, plan, range(4, 12))
    for name, tensors in to_tensors(through).items():
        assert all(torch.equal(value, to_tensors(resumed)[name][key]) for key, value in tensors.items()), name
    assert int(resumed.average.growing.growth) == 2 * UNITS  # type: ignore[union-attr]


def test_only_the_stages_in_use_are_trained():
    plan = make_plan()
    state = create(plan, Runtime(), 0, 100_000)
    before = {name: weight.detach().clone() for name, weight in state.generator.named_parameters()}
    run(state, plan, range(2))
    moved = {name for name, weight in state.generator.named_parameters() if not torch.equal(weight, before[name])}
    assert {"linear.weight", "seconds.0.weight", "to_items.0.weight"} <= moved
    assert not any(name.startswith(("firsts", "seconds.1", "to_items.1")) for name in moved)


def number_of_weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_the_networks_have_the_published_sizes():
    """Table 2 of the paper: 512 channels to 32 x 32, then 256, 128, 64, 32 and 16 at 1024; 23.1 million each.

    The table counts the 1x1 convolution of the last size alone; there is one for each of the nine.
    """
    widths = [512] * 4 + [256, 128, 64, 32, 16]
    pairs = list(itertools.pairwise(widths))
    made = 512 * 512 * 16 + 512 + 9 * 512 * 512 + 512 + sum(9 * a * b + b + 9 * b * b + b for a, b in pairs)
    made += sum(3 * w + 3 for w in widths)
    judged = sum(9 * b * b + b + 9 * a * b + a for a, b in pairs) + sum(3 * w + w for w in widths)
    judged += 9 * 513 * 512 + 512 + 16 * 512 * 512 + 512 + 513
    with torch.device("meta"):
        generator = ProgressiveGenerator((3, 1024, 1024), latent=512, width=16)
        discriminator = ProgressiveDiscriminator((3, 1024, 1024), width=16)
    assert number_of_weights(generator) == made == 23_079_115
    assert number_of_weights(discriminator) == judged == 23_087_249
