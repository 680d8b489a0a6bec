"""FastGAN: excitations, what the discriminator rebuilds, and that the term is of real items alone."""

import pytest
import torch
from torch import Tensor

from ganlib.core import Pair, Verdict
from ganlib.networks.fastgan import Excitation, FastGANDiscriminator, FastGANGenerator, quarter
from ganlib.tasks.rebuild import GenerateRebuilding


def test_an_excitation_scales_each_fine_channel_by_a_number_between_0_and_1():
    torch.manual_seed(0)
    layer, coarse, fine = Excitation(3, 5), torch.randn(2, 3, 8, 8), torch.randn(2, 5, 16, 12)
    ratio = (layer(coarse, fine) / fine).detach()
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio), rtol=1e-4, atol=1e-5)
    assert float(ratio.min()) > 0 and float(ratio.max()) < 1
    pooled = coarse.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    first, second = layer.layers[1], layer.layers[3]
    hidden = (first.weight * pooled[:, None]).sum((2, 3, 4)) + first.bias  # type: ignore[operator]
    hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
    expected = (hidden @ second.weight[:, :, 0, 0].T + second.bias).sigmoid()  # type: ignore[index]
    torch.testing.assert_close(ratio[:, :, 0, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "leaps"), [(5, []), (16, [(0, 2)]), (28, [(0, 2)]), (128, [(0, 4), (1, 5)])])
def test_excitations_leap_four_doublings_or_all_there_are(side: int, leaps: list[tuple[int, int]]):
    network = FastGANGenerator((1, side, side), latent=4, width=2)
    widths = [2 * 2 ** (len(network.stages) - stage) for stage in range(len(network.stages) + 1)]
    found = [(layer.layers[1].in_channels, layer.layers[3].out_channels) for layer in network.excitations]  # type: ignore[union-attr,index]
    assert found == [(widths[a], widths[b]) for a, b in leaps]


def test_quarters_are_cut_by_row_and_column_of_each_item():
    x = torch.arange(4 * 2 * 6 * 4.0).reshape(4, 2, 6, 4)
    made = quarter(x, torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]))
    expected = [x[0, :, :3, :2], x[1, :, :3, 2:], x[2, :, 3:, :2], x[3, :, 3:, 2:]]
    assert torch.equal(made, torch.stack(expected))


@pytest.mark.parametrize(
    ("shape", "whole", "part"), [((1, 28, 28), 28, 14), ((3, 16, 16), 16, 8), ((1, 256, 256), 128, 128)]
)
def test_the_targets_are_the_picture_and_a_quarter_of_it(shape: tuple[int, ...], whole: int, part: int):
    network, items = FastGANDiscriminator(shape, width=2, widest=8).eval(), torch.rand(2, *shape) * 2 - 1
    rebuilt, target, rebuilt_part, target_part = network(items).features
    assert rebuilt.shape == target.shape == (2, shape[0], whole, whole)
    assert rebuilt_part.shape == target_part.shape == (2, shape[0], part, part)
    block = shape[1] // whole
    torch.testing.assert_close(target, items.unflatten(2, (whole, block)).unflatten(4, (whole, block)).mean((3, 5)))
    half = items[:, :, : shape[1] // 2, : shape[2] // 2]
    if part == shape[1] // 2:
        assert torch.equal(target_part, half)


def test_while_training_every_quarter_is_drawn():
    torch.manual_seed(0)
    network = FastGANDiscriminator((1, 16, 16), width=2, widest=8)
    marks = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)
    target = network(marks.expand(64, 1, 16, 16)).features[3]
    assert set(target.unique().tolist()) == {0.0, 1.0, 2.0, 3.0} and bool((target == target[:, :, :1, :1]).all())


def test_the_term_is_the_mean_absolute_difference_of_real_items_alone():
    def verdict(*features: Tensor) -> Verdict:
        return Verdict((torch.zeros(2),), features)

    ones, threes = torch.ones(2, 1, 4, 4), torch.full((2, 1, 2, 2), 3.0)
    task = GenerateRebuilding(torch.nn.Identity, torch.nn.Identity, 1)
    real = verdict(ones, 0.5 * ones, threes, torch.cat([threes[:1], 0 * threes[:1]]))
    terms = task.discriminator_terms(Pair(ones, ones), real, verdict(ones, 99 * ones))
    assert terms.keys() == {"rebuilding"} and float(terms["rebuilding"]) == 0.5 + 1.5
    assert task.generator_terms(Pair(ones, ones), None, real) == {}
