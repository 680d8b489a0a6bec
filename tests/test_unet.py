"""The U-Net: its published size, pictures of any size, layers that no normalisation empties, noise by dropout."""

import pytest
import torch
from torch import Tensor, nn

from ganlib.networks.normalised import Normalisation
from ganlib.networks.unet import UNetGenerator, depth_for
from twice import slope_of_penalty

SIZES = [(256, 256), (64, 64), (32, 32), (28, 28), (20, 28), (8, 8), (5, 7), (100, 60)]


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def magnified(network: nn.Module) -> None:
    """Weights five times as large: at the start hardly anything passes through ten layers."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(5)


def test_the_published_size_has_the_published_number_of_weights():
    """4 x 4 kernels without bias but in the last layer; a gain and a bias for each normalised channel.

    Encoder 3-64, then normalised 64-128-256-512-512-512-512, then 512-512; decoder, all normalised, 512-512, three
    times 1024-512, 1024-256, 512-128, 256-64, then 128-3 with 3 biases.
    """
    encoder = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512 * 512) + 2 * (128 + 256 + 4 * 512)
    decoder = 16 * (512 * 512 + 3 * 1024 * 512 + 1024 * 256 + 512 * 128 + 256 * 64) + 2 * (4 * 512 + 256 + 128 + 64)
    with torch.device("meta"):
        network = UNetGenerator(3, 3)
        assert count(network) == encoder + decoder + 16 * 128 * 3 + 3 == 54_413_955
        # The reference implementation's count, less the biases, all but the last, which it has with this normalisation.
        biases = 64 + 128 + 256 + 5 * 512 + 4 * 512 + 256 + 128 + 64
        assert count(UNetGenerator(3, 3, normalisation="instance")) == 54_409_603 - biases


def test_depths_of_common_sizes():
    assert [depth_for(*size) for size in SIZES] == [8, 6, 5, 5, 4, 3, 2, 6]
    assert (depth_for(1024, 512), depth_for(1, 1)) == (8, 2)
    with pytest.raises(ValueError, match="2 or more"):
        UNetGenerator(1, 1, depth=1)


@pytest.mark.parametrize("normalisation", ["batch", "instance", "none"])
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_any_size_stays_and_gradients_reach_every_weight(size: tuple[int, int], normalisation: Normalisation):
    """Also for a batch of one, where a normalised map of one place would be zero and pass nothing on."""
    torch.manual_seed(0)
    network = UNetGenerator(2, 3, width=4, depth=depth_for(*size), normalisation=normalisation, dropout=0.0)
    made = network(torch.randn(1, 2, *size))
    assert made.shape == (1, 3, *size) and float(made.detach().abs().max()) <= 1
    (made * torch.randn(made.shape)).sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and bool((weight.grad.flatten(1) if weight.ndim > 1 else weight.grad).any()), (
            name
        )


def test_a_picture_of_the_networks_multiple_is_neither_padded_nor_cropped_and_others_lie_in_its_centre():
    torch.manual_seed(0)
    network = UNetGenerator(1, 1, width=4, depth=3).eval()
    large = torch.randn(1, 1, 16, 16)
    large[:, :, :3] = large[:, :, 3:4]
    large[:, :, 13:] = large[:, :, 12:13]
    with torch.no_grad():
        torch.testing.assert_close(network(large[:, :, 3:13]), network(large)[:, :, 3:13])


def test_it_is_nested_blocks_each_around_the_next():
    """The other way to write it: a block takes x, and gives max(x, 0.2 x) beside what the block within makes of it."""
    torch.manual_seed(0)
    network = UNetGenerator(2, 1, width=4, depth=4).eval().double()
    magnified(network)
    halvings, doublings = [*network.encoder, network.innermost], list(network.decoder)

    def block(x: Tensor, level: int) -> Tensor:
        if level == len(halvings):
            return x
        slack = torch.maximum(x, 0.2 * x)
        return torch.cat([slack, doublings[-1 - level](block(halvings[level](slack), level + 1).clamp(min=0))], 1)

    items = torch.randn(2, 2, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        wanted = torch.tanh(network.last(block(network.first(items), 0).clamp(min=0)))
        torch.testing.assert_close(network(items), wanted)


def test_the_innermost_layer_sees_the_whole_picture_and_the_skips_keep_the_place():
    """Without skips nothing would tie a pixel to its place; without the bottleneck, nothing to what is far."""
    torch.manual_seed(0)
    network = UNetGenerator(1, 1, width=8, depth=5, normalisation="none").eval().double()
    magnified(network)
    items = torch.randn(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(network(items)[0, 0, 0, 0], items)
    assert bool((slope != 0).all())
    near, far = slope[0, 0, :2, :2].abs().mean(), slope[0, 0, 8:, 8:].abs().mean()
    assert float(near) > 10 * float(far)


def test_dropout_is_the_noise_of_training_alone():
    torch.manual_seed(0)
    items = torch.randn(2, 1, 32, 32)
    network = UNetGenerator(1, 1, width=4, depth=5)
    assert not torch.equal(network(items), network(items))
    network.eval()
    assert torch.equal(network(items), network(items))
    still = UNetGenerator(1, 1, width=4, depth=5, dropout=0.0)
    assert torch.equal(still(items), still(items))


@pytest.mark.parametrize("channels", [(1, 3), (3, 3), (3, 1)])
def test_one_that_adds_gives_the_given_picture_plus_what_it_makes_otherwise(channels: tuple[int, int]):
    torch.manual_seed(0)
    plain = UNetGenerator(*channels, width=4, depth=3, dropout=0.0).eval()
    adding = UNetGenerator(*channels, width=4, depth=3, dropout=0.0, adds=True).eval()
    adding.load_state_dict(plain.state_dict())
    items = torch.rand(2, channels[0], 11, 9) * 2 - 1
    base = items if channels[1] == 3 else (items[:, :1] + items[:, 1:2] + items[:, 2:]) / 3
    torch.testing.assert_close(adding(items), plain(items) + base)

    with torch.no_grad():
        adding.last.weight.zero_()
    assert torch.equal(adding(items), base.expand(-1, channels[1], -1, -1)), "nothing made is a copy"


@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_it_can_be_differentiated_twice(normalisation: Normalisation):
    torch.manual_seed(0)
    network = UNetGenerator(1, 2, width=2, depth=2, normalisation=normalisation, dropout=0.0).double()
    items = torch.randn(2, 1, 9, 8, dtype=torch.float64)
    exact, measured = slope_of_penalty(network, network, items)
    assert exact == pytest.approx(measured, rel=1e-4)


def test_bfloat16_by_autocast_and_channels_last():
    torch.manual_seed(0)
    network = UNetGenerator(3, 1, width=8, depth=5, normalisation="instance", dropout=0.0)
    items = torch.randn(2, 3, 28, 28)
    exact = network(items).detach()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(network(items.contiguous(memory_format=torch.channels_last)), exact)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(items)
    assert float((rounded.detach().float() - exact).abs().max()) < 0.05
    rounded.float().square().sum().backward()
    assert all(w.grad is not None and bool(w.grad.isfinite().all()) for w in network.parameters())
