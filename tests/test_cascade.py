"""A cascade: what each stage is given, what judges see, when stages begin."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ganlib import GAN
from ganlib.core import Draws
from ganlib.networks.cascade import (
    CascadeDiscriminator,
    CascadeGenerator,
    coarser,
    enlarged,
    num_stages,
    padded_size,
    stacked,
    unstacked,
)
from ganlib.recipes.cascade import cascade
from ganlib.tasks.stages import GenerateInStages

SHAPE = (2, 12, 20)


def generator() -> CascadeGenerator:
    torch.manual_seed(0)
    return CascadeGenerator(SHAPE, latent=3, width=4, stages=3, begin=0.1)


def judge() -> CascadeDiscriminator:
    torch.manual_seed(0)
    return CascadeDiscriminator(SHAPE, width=4, stages=3, begin=0.1)


def test_coarser_pictures_are_means_and_survive_stacking(rng: torch.Generator):
    items = torch.rand(4, *SHAPE, generator=rng)
    pictures = coarser(items, 3)
    assert [each.shape[2:] for each in pictures] == [(3, 5), (6, 10), (12, 20)]
    torch.testing.assert_close(pictures[0][:, :, 1, 2], items[:, :, 4:8, 8:12].mean((2, 3)))
    for ours, wanted in zip(unstacked(stacked(pictures), 3), pictures, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_a_stage_is_given_the_picture_of_the_one_before_it_and_does_not_change_it():
    network, given = generator(), []
    for refiner in network.refiners:
        refiner.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    made = network.all_stages(torch.randn(4, 9))
    assert [each.shape for each in made] == [(4, 2, 3, 5), (4, 2, 6, 10), (4, 2, 12, 20)]
    assert all(torch.equal(condition, picture) for condition, picture in zip(given, made[:-1], strict=True))
    made[-1].sum().backward()
    moved = {name.split(".")[0] + name.split(".")[1] for name, w in network.named_parameters() if w.grad is not None}
    assert all(name.startswith("refiners1") for name in moved) and moved


def test_each_stage_has_its_own_part_of_the_latent():
    network, latent = generator().eval(), torch.randn(4, 9)
    other = torch.cat([latent[:, :6], torch.randn(4, 3)], 1)
    first, second = network.all_stages(latent), network.all_stages(other)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[2], second[2])


def test_stages_begin_one_after_another_and_only_enlarge_before():
    network, discriminator = generator().eval(), judge()
    for seen, begun in ((0, 1), (99, 1), (100, 2), (200, 3), (1000, 3)):
        for each in (network, discriminator):
            each.grow(seen, 1000)
        assert int(network.num_begun) == len(discriminator(torch.zeros(2, *SHAPE)).logits) == begun
    network.grow(0, 1000)
    made = network.all_stages(torch.randn(2, 9))
    assert torch.equal(made[1], enlarged(made[0])) and torch.equal(made[2], enlarged(enlarged(made[0])))


def test_a_plain_picture_is_judged_like_its_coarser_forms(rng: torch.Generator):
    items, discriminator = torch.rand(4, *SHAPE, generator=rng), judge()
    plain, whole = discriminator(items), discriminator(stacked(coarser(items, 3)))
    for ours, wanted in zip(plain.logits, whole.logits, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_the_gradient_of_a_coarse_judge_weighs_by_its_own_pixels(rng: torch.Generator):
    pictures = [each.requires_grad_() for each in coarser(torch.rand(1, *SHAPE, generator=rng), 3)]
    whole = stacked([each.detach() for each in pictures]).requires_grad_()

    def of_coarsest(picture: Tensor) -> Tensor:
        return picture.square().sum()

    of_coarsest(unstacked(whole, 3)[0]).backward()
    of_coarsest(pictures[0]).backward()
    assert whole.grad is not None and pictures[0].grad is not None
    assert float(whole.grad.square().sum()) == pytest.approx(float(pictures[0].grad.square().sum()) / 16, rel=1e-5)


def test_a_pair_has_real_and_fake_stacked_alike_and_a_sample_is_the_finest(rng: torch.Generator):
    shape = (1, 10, 13)
    task = GenerateInStages(
        lambda: CascadeGenerator(shape, latent=3, width=4, stages=3, begin=0.1),
        lambda: CascadeDiscriminator(shape, width=4, stages=3, begin=0.1),
        9,
        stages=3,
    )
    network, discriminator = task.networks()
    real = torch.rand(4, *shape, generator=rng)
    pair = task.pair(network, task.draw({"real": real}, Draws(rng)))
    assert pair.real.shape == pair.fake.shape == (4, 3, 12, 16) and padded_size(10, 13, 3) == (12, 16)
    assert torch.equal(pair.real[:, 2:, 1:11, 1:14], real)
    assert discriminator is not None and len(discriminator(pair.fake).logits) == 3
    latent = torch.randn(2, 9)
    network.eval()
    assert torch.equal(task.sample(network, latent, None), network(latent)[:, 2:, 1:11, 1:14])


def test_more_pixels_take_more_stages():
    assert [num_stages(side, side) for side in (8, 28, 32, 48, 64, 256)] == [2, 2, 2, 3, 3, 5]


def test_a_cascade_is_fitted_drawn_from_saved_and_taken_up_again(tmp_path: Path):
    recipe = cascade(width=8, latent=4, batch_items=32)
    whole = GAN(recipe, seed=1).fit("digits", items=128, progress="none")
    GAN(recipe, seed=1).fit("digits", items=64, run=tmp_path / "run", progress="none")
    again = GAN(recipe, seed=1).fit("digits", items=128, run=tmp_path / "run", progress="none")
    assert again.sample(5).shape == whole.sample(5).shape == (5, 8, 8)
    whole.save(tmp_path / "cascade.gan")
    assert np.array_equal(GAN.load(tmp_path / "cascade.gan").sample(5), whole.sample(5))
    digits = np.zeros((3, 8, 8), np.uint8)
    assert whole.score(digits, [0, 1, 2]).shape == (3,)
