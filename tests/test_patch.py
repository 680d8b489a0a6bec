"""The patch discriminator: the patch it sees, its published size, conditions by picture and by class."""

import pytest
import torch
from torch import nn

from ganlib.networks.patch import PatchDiscriminator, layers_for, receptive_field
from twice import slope_of_penalty

KINDS = ["batch", "instance", "none", "spectral"]


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_one_logit_sees_the_published_patch_and_no_more(layers: int, side: int):
    """Measured: the pixels whose change moves a logit in the middle of a picture twice as large are a square."""
    torch.manual_seed(0)
    network = PatchDiscriminator(2, width=2, layers=layers, normalisation="none").double()
    items = torch.randn(1, 2, 2 * side + 10, 2 * side + 26, dtype=torch.float64, requires_grad=True)
    (logits,) = network(items).logits
    (slope,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], items)
    seen = (slope[0] != 0).any(0).nonzero()
    top_left, bottom_right = seen.amin(0), seen.amax(0)
    assert (bottom_right - top_left + 1).tolist() == [side, side] and len(seen) == side**2
    assert receptive_field(layers) == side


def test_the_published_depth_has_the_published_number_of_weights():
    """4 x 4 kernels C-64, 64-128-256-512, 512-1; the first and last have biases, the others a gain and a bias each."""
    kernels = 16 * (64 * 128 + 128 * 256 + 256 * 512 + 512 * 1)
    with torch.device("meta"):
        for channels, published in ((3, 2_765_633), (6, 2_768_705)):
            network = PatchDiscriminator(3, condition_channels=channels - 3)
            assert count(network) == 16 * 64 * channels + 64 + kernels + 2 * (128 + 256 + 512) + 1 == published
        # The reference implementation has 2,764,737: biases instead of gains, which this normalisation undoes.
        assert count(PatchDiscriminator(3, normalisation="instance")) == 2_764_737 - (128 + 256 + 512)
        assert count(PatchDiscriminator(3, normalisation="none")) == 2_764_737


def test_a_picture_of_256_has_30_by_30_logits():
    network = PatchDiscriminator(3, width=2)
    verdict = network(torch.randn(2, 3, 256, 256))
    assert verdict.logits[0].shape == (2, 1, 30, 30)
    assert [tuple(f.shape) for f in verdict.features] == [
        (2, 2, 128, 128),
        (2, 4, 64, 64),
        (2, 8, 32, 32),
        (2, 16, 31, 31),
    ]


@pytest.mark.parametrize("normalisation", KINDS)
@pytest.mark.parametrize("size", [(28, 28), (32, 48), (20, 28), (8, 8), (5, 7), (1, 1)], ids=str)
def test_any_size_is_judged_and_every_pixel_and_weight_counts(size: tuple[int, int], normalisation: str):
    torch.manual_seed(0)
    network = PatchDiscriminator(2, width=4, layers=layers_for(*size), normalisation=normalisation)  # pyright: ignore
    items = torch.randn(2, 2, *size, requires_grad=True)
    (logits,) = network(items).logits
    assert logits.shape[:2] == (2, 1) and logits.numel() >= 2
    (logits * torch.randn(logits.shape)).sum().backward()
    if size != (1, 1) or normalisation in ("none", "spectral"):  # of one pixel, normalisation leaves the edges' effect
        assert items.grad is not None and bool((items.grad != 0).any(0).all())
        assert all(w.grad is not None and bool((w.grad != 0).any()) for w in network.parameters())


def test_layers_of_common_sizes():
    sizes = [(256, 256), (128, 128), (64, 64), (32, 32), (28, 28), (8, 8), (256, 60)]
    assert [layers_for(*size) for size in sizes] == [3, 3, 2, 1, 1, 1, 2]
    with pytest.raises(ValueError, match="1 or more"):
        PatchDiscriminator(1, layers=0)


def test_the_source_picture_is_judged_beside_the_item():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, condition_channels=1, width=4, layers=1)
    items, source, other = torch.randn(2, 3, 32, 32), torch.randn(2, 1, 32, 32), torch.randn(2, 1, 32, 32)
    assert not torch.equal(network(items, source).logits[0], network(items, other).logits[0])
    with pytest.raises(ValueError, match="pass it as condition"):
        network(items)
    with pytest.raises(ValueError, match="not both"):
        PatchDiscriminator(3, condition_channels=1, num_classes=2)


def test_a_class_adds_its_own_convolution_to_the_shared_one():
    torch.manual_seed(0)
    network = PatchDiscriminator(1, width=4, layers=1, normalisation="none", num_classes=3)
    items, labels = torch.randn(4, 1, 16, 16), torch.tensor([0, 2, 1, 2])
    verdict = network(items, labels)
    shared, own = network.last.weight[:1], network.last.weight[1:]
    for item, label in enumerate(labels.tolist()):
        wanted = nn.functional.conv2d(verdict.features[-1][item : item + 1], shared + own[label : label + 1], padding=1)
        torch.testing.assert_close(verdict.logits[0][item : item + 1], wanted)
    with pytest.raises(ValueError, match="pass labels"):
        network(items)


@pytest.mark.parametrize("normalisation", ["batch", "instance", "none"])
def test_it_can_be_differentiated_twice(normalisation: str):
    torch.manual_seed(0)
    network = PatchDiscriminator(1, width=2, layers=2, normalisation=normalisation, num_classes=2).double()  # pyright: ignore
    items, labels = torch.randn(2, 1, 14, 13, dtype=torch.float64), torch.tensor([1, 0])
    exact, measured = slope_of_penalty(network, lambda x: network(x, labels).logits[0], items)
    assert exact == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize("normalisation", KINDS)
def test_bfloat16_by_autocast_and_channels_last(normalisation: str):
    torch.manual_seed(0)
    network = PatchDiscriminator(3, width=8, layers=2, normalisation=normalisation).eval()  # pyright: ignore
    items = torch.randn(2, 3, 32, 32)
    exact = network(items).logits[0].detach()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    last = network(items.contiguous(memory_format=torch.channels_last)).logits[0]
    torch.testing.assert_close(last.detach(), exact, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(items).logits[0]
    assert float((rounded.detach().float() - exact).abs().max()) < 0.05 * max(1.0, float(exact.abs().max()))
