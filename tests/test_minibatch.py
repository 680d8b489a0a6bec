"""Layers that look at other items: minibatch discrimination and deviation, packs, virtual batch normalisation."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganlib.core import Verdict
from ganlib.errors import UsageError
from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
from ganlib.networks.minibatch import BesideFeatures, MinibatchDeviation, MinibatchDiscrimination, num_features
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.networks.packing import Packed, pack
from ganlib.networks.virtual_norm import VirtualBatchNorm, VirtuallyNormalised


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_minibatch_discrimination_is_what_loops_make_of_it(count: int):
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(6, kernels=3, kernel_width=2)
    features = 0.5 * random(count, 2, 3)
    tensor = layer.projection.weight.detach().numpy().T.reshape(6, 3, 2)
    rows = np.einsum("na,abc->nbc", features.flatten(1).numpy(), tensor)
    expected = np.zeros((count, 3))
    for i in range(count):
        for b in range(3):
            others = [np.exp(-np.abs(rows[i, b] - rows[j, b]).sum()) for j in range(count) if j != i]
            expected[i, b] = np.mean(others) if others else 0.0
    np.testing.assert_allclose(layer(features).detach(), expected, rtol=1e-5)


def test_minibatch_discrimination_tells_copies_from_variety_in_a_batch_of_any_size():
    layer = MinibatchDiscrimination(6, kernels=3)
    assert torch.allclose(layer(random(1, 6).repeat(9, 1)), torch.ones(()))
    twice = torch.cat([random(1, 6), random(1, 6), 1000 * random(1, 6, seed=1), -1000 * random(1, 6, seed=1)])
    torch.testing.assert_close(layer(twice)[:, 0], torch.tensor([1, 1, 0, 0]) / 3)


@pytest.mark.parametrize(("count", "size"), [(8, 4), (6, 4), (5, 4), (3, 4), (1, 4), (9, 2)])
def test_minibatch_deviation_is_what_loops_make_of_it(count: int, size: int):
    features = random(count, 3, 2, 2)
    groups = -(-count // min(size, count))
    expected = []
    for item in range(count):
        members = [(item % groups + groups * k) % count for k in range(min(size, count))]
        expected.append(features[members].numpy().std(0).mean())
    found = MinibatchDeviation(size)(features)
    assert found.shape == (count, 1)
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-4)


def test_minibatch_deviation_as_a_map_and_its_slope_where_all_items_are_one():
    features = random(1, 3, 2, 2).repeat(4, 1, 1, 1).requires_grad_()
    mapped = MinibatchDeviation()(features)
    (gradient,) = torch.autograd.grad(mapped.sum(), features)
    assert bool(gradient.isfinite().all()) and float(mapped.detach().max()) < 1e-3
    features = random(4, 3, 2, 2)
    made = MinibatchDeviation().as_map(features)
    assert made.shape == (4, 4, 2, 2) and torch.equal(made[:, :3], features)
    torch.testing.assert_close(made[:, 3], features.std(0, correction=0).mean().expand(4, 2, 2), rtol=1e-4, atol=1e-4)


def test_minibatch_deviation_of_few_bits_is_computed_in_many():
    features = (100 + random(4, 3, 2, 2)).bfloat16()
    found, wanted = MinibatchDeviation()(features), MinibatchDeviation()(features.float())
    assert torch.equal(found, wanted) and MinibatchDeviation().as_map(features).dtype == torch.bfloat16


def test_a_layer_beside_the_features_of_a_linear_head_is_its_numbers_beside_them():
    torch.manual_seed(0)
    plain = MLPDiscriminator((3,), widths=(5,))
    network = BesideFeatures(plain, MinibatchDiscrimination(num_features(plain, (3,), 0), kernels=4))
    items = random(6, 3)
    features = plain(items).features[0]
    joined = torch.cat([features, network.layer(features)], 1)
    weight = torch.cat([plain.head.linear.weight, network.linear.weight], 1)
    torch.testing.assert_close(network(items).logits[0], joined @ weight[0] + plain.head.linear.bias)


def test_a_layer_beside_features_needs_some():
    class Blind(nn.Module):
        def forward(self, items: Tensor, labels: Tensor | None = None) -> Verdict:
            return Verdict((items.sum(1),))

    with pytest.raises(UsageError, match="features"):
        num_features(Blind(), (3,), 0)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_packs_are_of_items_far_apart_whatever_the_number(count: int):
    expected = [[(i + j * max(1, count // 3)) % count for j in range(3)] for i in range(count)]
    assert pack(count, 3, None, torch.device("cpu")).tolist() == expected


def test_packs_are_of_one_class_cyclically_and_begin_with_the_item_itself():
    labels = [2, 0, 2, 1, 0, 2, 2, 2, 2, 2]
    found = pack(len(labels), 3, torch.tensor(labels), torch.device("cpu")).tolist()
    for item, members in enumerate(found):
        same = [other for other, label in enumerate(labels) if label == labels[item]]
        start = same.index(item)
        apart = max(1, len(same) // 3)
        assert members == [same[(start + j * apart) % len(same)] for j in range(3)]


@pytest.mark.parametrize("classes", [0, 3])
def test_a_packed_verdict_is_that_on_items_side_by_side(classes: int):
    torch.manual_seed(0)
    judge = CompactDiscriminator((4, 8, 8), width=2, num_classes=classes)
    items, labels = random(5, 2, 8, 8), torch.tensor([0, 1, 0, 0, 1]) if classes else None
    found = Packed(judge, 2)(items, labels).logits[0]
    partner = [2, 4, 3, 0, 1] if classes else [2, 3, 4, 0, 1]
    for item in range(5):
        beside = torch.cat([items[item], items[partner[item]]])[None]
        alone = judge(beside, None if labels is None else labels[item : item + 1]).logits[0]
        torch.testing.assert_close(found[item : item + 1], alone)


def test_packs_of_copies_are_told_from_packs_of_different_items():
    """A difference within a pack is all that this judge looks at."""

    class Difference(nn.Module):
        def forward(self, items: Tensor, labels: Tensor | None = None) -> Verdict:
            return Verdict(((items[:, :2] - items[:, 2:]).abs().sum(1),))

    assert float(Packed(Difference(), 2)(random(1, 2).repeat(6, 1)).logits[0].max()) == 0
    assert float(Packed(Difference(), 2)(random(6, 2)).logits[0].min()) > 0


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
def test_virtual_batch_normalisation_is_its_formula(shape: tuple[int, ...]):
    n, norm = 4, nn.BatchNorm1d(3)
    nn.init.normal_(norm.weight, 1.0)
    nn.init.normal_(norm.bias)
    x = 2 + 3 * random(n + 2, *shape)
    found = VirtualBatchNorm(norm, n)(x).detach()
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    values = x.numpy().reshape(n + 2, 3, -1)
    for channel in range(3):
        reference = values[:n, channel]
        mean, square = reference.mean(), (reference**2).mean()
        for item in range(n + 2):
            own = values[item, channel]
            m = mean if item < n else (n * mean + own.mean()) / (n + 1)
            m2 = square if item < n else (n * square + (own**2).mean()) / (n + 1)
            expected = weight[channel] * (own - m) / np.sqrt(m2 - m**2 + 1e-5) + bias[channel]
            np.testing.assert_allclose(found[item, channel].numpy().ravel(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("classes", [0, 3])
def test_an_item_of_a_virtually_normalised_generator_knows_of_no_other_in_its_batch(classes: int):
    torch.manual_seed(0)
    generator = CompactGenerator((1, 8, 8), latent=4, width=2, num_classes=classes)
    network = VirtuallyNormalised(generator, random(8, 4, seed=1), num_classes=classes)
    latent, labels = random(5, 4, seed=2), torch.tensor([0, 1, 2, 0, 1]) if classes else None
    together = network(latent, labels)
    for item in range(5):
        own = None if labels is None else labels[item : item + 1]
        torch.testing.assert_close(network(latent[item : item + 1], own)[0], together[item], rtol=1e-4, atol=1e-5)
    network.eval()
    assert torch.equal(network(latent, labels), together), "it is the same in training and after"
    assert "reference" in network.state_dict() and ("reference_labels" in network.state_dict()) == bool(classes)


def test_a_virtually_normalised_generator_is_trained_through_its_reference_too():
    torch.manual_seed(0)
    network = VirtuallyNormalised(
        MLPGenerator((2,), latent=3, widths=(4,), batch_norm=True, bounded=False), random(6, 3, seed=1)
    )
    first = network.generator.layers[0].weight
    whole = torch.autograd.grad(network(random(1, 3)).sum(), first)[0]
    assert bool(whole.isfinite().all()) and float(whole.abs().max()) > 0
    # By differences, which see every way that the weight takes.
    network.double()
    latent = random(1, 3).double()
    (exact,) = torch.autograd.grad(network(latent).sum(), network.generator.layers[0].weight)
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            network.generator.layers[0].weight[0, 0] += sign * 1e-4
            values.append(float(network(latent).sum()))
            network.generator.layers[0].weight[0, 0] -= sign * 1e-4
    assert float(exact[0, 0]) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-2, abs=1e-4)


def test_a_generator_without_batch_normalisation_is_refused():
    with pytest.raises(UsageError, match="batch normalisation"):
        VirtuallyNormalised(MLPGenerator((2,), latent=3, widths=(4,)), random(6, 3))
