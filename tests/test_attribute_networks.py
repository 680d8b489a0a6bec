"""Networks of attributes: the mask decides what changes, the attributes are heard, the published sizes."""

import pytest
import torch
from torch import nn

from ganlib.networks.attributes import AttributeDiscriminator, AttributeGenerator, attribute_layers_for
from twice import slope_of_penalty


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("size", [(28, 28), (20, 28), (9, 13), (5, 7)], ids=str)
def test_an_edit_is_a_mixture_by_the_mask(size: tuple[int, int]):
    torch.manual_seed(0)
    network = AttributeGenerator(3, num_attributes=2, width=4, blocks=1, downsamplings=1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(20)  # so that mask and colour take all their values
        for head in (network.mask[1], network.colour[1]):
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    items, attributes = torch.rand(2, 3, *size) * 2 - 1, torch.randn(2, 2)
    made, colour, mask = (found.detach() for found in network(items, attributes))
    assert made.shape == colour.shape == (2, 3, *size) and mask.shape == (2, 1, *size)
    assert 0 <= float(mask.min()) < 0.1 and 0.9 < float(mask.max()) <= 1
    assert float(colour.abs().max()) <= 1 and float(made.abs().max()) <= 1 + 1e-6
    torch.testing.assert_close(made, colour + mask * (items - colour))


def test_a_mask_of_one_keeps_the_picture_and_of_zero_paints_it_over():
    torch.manual_seed(0)
    network = AttributeGenerator(1, num_attributes=2, width=4, blocks=1, downsamplings=1)
    items, attributes = torch.rand(2, 1, 16, 16) * 2 - 1, torch.randn(2, 2)
    head = network.mask[1]
    assert isinstance(head, nn.Conv2d) and head.bias is not None
    for value, bias in ((1.0, 100.0), (0.0, -100.0)):
        nn.init.constant_(head.bias, bias)
        made, colour, mask = network(items, attributes)
        assert bool((mask == value).all())
        assert torch.equal(made, items if value else colour)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_attributes_are_heard_also_in_a_flat_picture_far_from_its_edges(adaptive: bool):
    """Planes added to the input are a constant, which instance normalisation right after it takes away again."""
    torch.manual_seed(0)
    network = AttributeGenerator(1, num_attributes=3, width=8, blocks=2, adaptive=adaptive)
    items = torch.full((2, 1, 40, 40), -1.0)
    items[:, :, 17:23, 17:23] = 1.0
    one, other = (network(items, torch.eye(3)[[label] * 2]).colour.detach() for label in (0, 1))
    spread = one.flatten(1).std(1).mean()
    assert float((one - other)[:, :, 15:25, 15:25].abs().mean()) > 0.2 * float(spread)


def test_attributes_of_items_are_not_mixed_up():
    torch.manual_seed(0)
    network = AttributeGenerator(1, num_attributes=2, width=4, blocks=1, downsamplings=1, adaptive=True).double()
    items, attributes = torch.randn(3, 1, 12, 12).double(), torch.randn(3, 2).double()
    together = network(items, attributes).items
    alone = [network(items[i : i + 1], attributes[i : i + 1]).items for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_it_learns_to_do_what_the_attribute_says():
    """Attribute 1 turns the picture's signs, attribute 0 leaves it; a network deaf to it is off by 1 in the mean."""
    torch.manual_seed(0)
    network = AttributeGenerator(1, num_attributes=1, width=8, blocks=1, downsamplings=1)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    error = torch.tensor(1.0)
    for _ in range(60):
        items, attributes = torch.rand(16, 1, 12, 12).round() * 2 - 1, torch.randint(2, (16, 1)).float()
        made = network(items, attributes).items
        error = (made - items * (1 - 2 * attributes[:, :, None, None])).abs().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    assert float(error.detach()) < 0.6


def test_at_the_papers_sizes_the_weights_are_those_of_their_tables():
    """GANimation with 17 action units at 128 pixels: kernels of 7 to 64, 3 to 128 and 256, six blocks, back, two heads.

    StarGAN's discriminator: 4 x 4 kernels from 3 to 64, then five times doubled to 2048, with biases; heads of 3 x 3 to
    one logit and of the last 2 x 2 places to the attributes, without.
    """
    with torch.device("meta"):
        body = 49 * (3 + 17) * 64 + 64 + 2 * 9 * (64 * 128 + 128 * 256) + 12 * 9 * 256**2
        assert count(AttributeGenerator(3, num_attributes=17)) == body + 49 * 64 * (3 + 1) + 3 + 1
        stages = 16 * (3 * 64 + sum(64 * 2**level * 128 * 2**level for level in range(5))) + 64 * (2**6 - 1)
        network = AttributeDiscriminator((3, 128, 128), num_attributes=5)
        assert count(network) == stages + 9 * 2048 + 4 * 2048 * 5


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 20, 28), (1, 5, 7)], ids=str)
def test_the_discriminator_judges_places_and_tells_attributes(shape: tuple[int, int, int]):
    torch.manual_seed(0)
    layers = attribute_layers_for(*shape[1:])
    network = AttributeDiscriminator(shape, num_attributes=3, width=4, layers=layers)
    items = torch.randn(2, *shape, requires_grad=True)
    verdict = network(items, torch.randn(2, 3))
    rows, columns = (-(-side // 2**layers) for side in shape[1:])
    assert verdict.logits[0].shape == (2, 1, rows, columns) and verdict.classes is not None
    assert verdict.classes.shape == (2, 3) and len(verdict.features) == layers
    (verdict.logits[0].square().sum() + verdict.classes.square().sum()).backward()
    assert items.grad is not None and bool((items.grad != 0).all())
    assert all(w.grad is not None and bool((w.grad != 0).any()) for w in network.parameters())


def test_layers_of_common_sizes():
    sizes = [(256, 256), (128, 128), (64, 64), (32, 32), (28, 28), (8, 8), (5, 7)]
    assert [attribute_layers_for(*size) for size in sizes] == [6, 6, 5, 4, 3, 2, 1]


def test_both_can_be_differentiated_twice():
    torch.manual_seed(0)
    items, attributes = torch.randn(2, 1, 9, 8, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    generator = AttributeGenerator(1, num_attributes=2, width=2, blocks=1, downsamplings=1).double()
    exact, measured = slope_of_penalty(generator, lambda x: generator(x, attributes).items, items)
    assert exact == pytest.approx(measured, rel=1e-4)
    judge = AttributeDiscriminator((1, 9, 8), num_attributes=2, width=2, layers=2).double()
    for head in (lambda x: judge(x).logits[0], lambda x: judge(x).classes):
        exact, measured = slope_of_penalty(judge, head, items)
        assert exact == pytest.approx(measured, rel=1e-4)


def test_bfloat16_by_autocast():
    torch.manual_seed(0)
    network = AttributeGenerator(1, num_attributes=2, width=8, blocks=1)
    judge = AttributeDiscriminator((1, 28, 28), num_attributes=2, width=8, layers=3)
    items, attributes = torch.rand(2, 1, 28, 28) * 2 - 1, torch.randn(2, 2)
    exact, verdict = network(items, attributes).items, judge(items)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, other = network(items, attributes).items, judge(items)
    assert float((rounded.float() - exact).detach().abs().max()) < 0.05
    assert verdict.classes is not None and other.classes is not None
    assert float((other.classes.float() - verdict.classes).detach().abs().max()) < 0.05
    rounded.float().square().sum().backward()
    assert all(w.grad is not None and bool(w.grad.isfinite().all()) for w in network.parameters())
