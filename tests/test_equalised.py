"""Equalised layers, pixel norm, minibatch deviation and the blur against explicit formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from ganlib.networks.equalised import (
    Blur,
    ClassLatent,
    ClassLogit,
    EqualConv,
    EqualLinear,
    pixel_norm,
    widths_up_to,
)
from ganlib.networks.minibatch import MinibatchDeviation


def test_weights_begin_standard_normal_and_work_divided_by_the_root_of_their_inputs():
    torch.manual_seed(0)
    linear, conv = EqualLinear(200, 300, gain=1.5), EqualConv(30, 40, 3, gain=2.0)
    for weight in (linear.weight, conv.weight):
        assert float(weight.detach().std()) == pytest.approx(1, abs=0.02)
    x, picture = torch.randn(4, 200), torch.randn(2, 30, 5, 6)
    torch.testing.assert_close(linear(x), x @ linear.weight.T * (1.5 / math.sqrt(200)))
    torch.testing.assert_close(conv(picture), F.conv2d(picture, conv.weight * 2.0 / math.sqrt(270), padding=1))


def test_a_layer_of_another_rate_begins_the_same_and_moves_so_much_slower():
    torch.manual_seed(0)
    slow = EqualLinear(50, 1, rate=0.01, bias=2.0)
    assert float(slow.weight.detach().std()) == pytest.approx(100, rel=0.3)
    x = torch.randn(3, 50)
    before = slow(x).detach()
    torch.testing.assert_close(before, x @ slow.weight.detach().T / math.sqrt(50) * 0.01 + 2)
    optimiser = torch.optim.Adam(slow.parameters(), lr=0.1, betas=(0.0, 0.99))
    slow(x).sum().backward()
    optimiser.step()
    moved = -0.1 * 0.01 * (x @ x.sum(0).sign() / math.sqrt(50) + 1)  # Adam's first step is the sign times the rate
    torch.testing.assert_close((slow(x).detach() - before)[:, 0], moved, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3, 2)])
def test_pixel_norm_makes_the_mean_square_over_channels_one(shape: tuple[int, ...]):
    x = torch.randn(shape, dtype=torch.float64)
    made = pixel_norm(x)
    torch.testing.assert_close(made.square().mean(1), torch.ones_like(made[:, 0]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(made, x / (x.pow(2).sum(1, keepdim=True) / shape[1] + 1e-8).sqrt())
    assert bool(pixel_norm(torch.zeros(shape)).isfinite().all())


def test_minibatch_deviation_is_the_mean_over_channels_and_pixels_of_the_deviation_in_a_group():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 5, dtype=torch.float64)
    made = MinibatchDeviation(4).as_map(x)
    assert made.shape == (8, 4, 4, 5) and torch.equal(made[:, :3], x)
    for group in ([0, 2, 4, 6], [1, 3, 5, 7]):
        expected = sum(
            math.sqrt(
                sum((float(x[i, c, h, w]) - sum(float(x[j, c, h, w]) for j in group) / 4) ** 2 for i in group) / 4
            )
            for c in range(3)
            for h in range(4)
            for w in range(5)
        )
        torch.testing.assert_close(made[group, 3], torch.full((4, 4, 5), expected / 60).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("batch", "size"), [(8, 4), (3, 3), (2, 2), (1, 1)])
def test_the_deviation_is_that_of_a_group(batch: int, size: int):
    x = torch.arange(float(batch)).view(-1, 1, 1, 1) ** 2
    deviation = MinibatchDeviation().as_map(x)[:, 1, 0, 0]
    groups = [[start + step * (batch // size) for step in range(size)] for start in range(batch // size)]
    for group in groups:
        torch.testing.assert_close(deviation[group], x[group].std(correction=0).expand(size), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_the_deviation_of_equal_items_has_a_finite_gradient(fill: float):
    x = torch.full((4, 2, 3, 3), fill, requires_grad=True)
    MinibatchDeviation().as_map(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


def test_the_blur_is_1331_in_both_directions_and_keeps_the_mean():
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    impulse = torch.zeros(1, 2, 9, 9)
    impulse[0, 1, 4, 4] = 1
    made = Blur(padding=2)(impulse)
    assert float(made[0, 0].abs().max()) == 0
    torch.testing.assert_close(made[0, 1, 3:7, 3:7], torch.outer(taps, taps))
    assert float(made.sum()) == pytest.approx(1)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_halving_convolution_halves_and_is_centred(kernel: int):
    conv = EqualConv(1, 1, kernel, gain=1.0, halve=True, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
    made = conv(torch.rand(2, 1, 8, 12))
    assert made.shape == (2, 1, 4, 6)
    picture = torch.rand(1, 1, 8, 12)
    torch.testing.assert_close(conv(picture.flip(2, 3)), conv(picture).flip(2, 3))  # no shift by half a pixel
    inside = conv(torch.ones(1, 1, 16, 16))[..., 2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.full_like(inside, float(kernel)))  # Σ w / √(kernel²)


def test_the_logit_is_a_line_for_each_class_and_the_latent_is_on_a_sphere():
    head, latent = ClassLogit(6, 3), ClassLatent(3, 6)
    features, labels = torch.randn(4, 6), torch.tensor([2, 0, 0, 1])
    assert head.classes is not None and head.linear.bias is not None
    lines = (head.linear.weight + head.classes.weight[labels]) / math.sqrt(6)
    torch.testing.assert_close(head(features, labels), (lines * features).sum(1) + head.linear.bias)
    made = latent(7 * torch.randn(4, 6), labels)
    assert made.shape == (4, 12) and torch.equal(made[1, 6:], made[2, 6:]) and not torch.equal(made[0, 6:], made[1, 6:])
    torch.testing.assert_close(made.square().mean(1), torch.ones(4), rtol=1e-4, atol=1e-4)


def test_widths_double_towards_the_base_up_to_the_widest():
    assert widths_up_to(8, 32, 512) == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert widths_up_to(0, 16, 512) == [16]


@pytest.mark.parametrize("batch", [5, 6, 7, 9, 11])
def test_a_batch_that_groups_do_not_divide_has_a_deviation_too(batch: int):
    x = torch.arange(float(batch)).view(-1, 1, 1, 1) ** 2
    assert bool((MinibatchDeviation().as_map(x)[:, 1] > 0.4).all())
