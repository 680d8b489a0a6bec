"""Spectral normalisation, self-attention, conditional normalisation, and the residual families made of them."""

import copy
import math

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib import recipes
from ganlib.core import Spec
from ganlib.networks.attention import SelfAttention
from ganlib.networks.biggan import BigGANGenerator, ConditionNorm
from ganlib.networks.parts import ClassNorm
from ganlib.networks.resnet import (
    DownBlock,
    ResNetDiscriminator,
    ResNetGenerator,
    UpBlock,
    convolve_then_halve,
    double_then_convolve,
)
from ganlib.networks.spectral import SpectralNorm, spectral_normalise
from ganlib.recipe import Setting
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create, restore, to_facts, to_tensors
from ganlib.training.step import step
from ganlib.weights import OrthogonalRegularisation
from test_networks import at_rest, away_from_the_start, output


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def largest_singular_value(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().double(), ord=2))


LAYERS = {
    "linear": lambda: nn.Linear(9, 7),
    "wide linear": lambda: nn.Linear(40, 3),
    "convolution": lambda: nn.Conv2d(5, 8, 3),
    "one output": lambda: nn.Conv2d(5, 1, 3),
    "transposed": lambda: nn.ConvTranspose2d(5, 8, 4),
    "embedding": lambda: nn.Embedding(6, 11),
}


def as_matrix(layer: nn.Module) -> Tensor:
    weight = layer.weight
    return (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)  # type: ignore


@pytest.mark.parametrize("kind", LAYERS)
def test_spectral_normalisation_divides_by_the_largest_singular_value(kind: str):
    torch.manual_seed(3)
    layer = LAYERS[kind]()
    raw = as_matrix(layer).detach().clone()
    at_rest(spectral_normalise(layer)).eval()
    torch.testing.assert_close(as_matrix(layer).detach(), raw / largest_singular_value(raw), rtol=1e-4, atol=1e-6)


def test_one_power_iteration_a_call_in_training_and_none_afterwards():
    torch.manual_seed(0)
    weight = normal(6, 10)
    norm = SpectralNorm(weight)
    u = norm.u.clone()
    v = F.normalize(weight.T @ u, dim=0)
    expected = F.normalize(weight @ v, dim=0)
    torch.testing.assert_close(norm(weight), weight / (expected @ weight @ v))
    torch.testing.assert_close(norm.u, expected)
    norm.eval()(2 * weight + normal(6, 10, seed=1))
    torch.testing.assert_close(norm.u, expected, rtol=0, atol=0)


def test_the_gradient_through_spectral_normalisation_is_that_of_the_singular_value():
    torch.manual_seed(0)
    weight = normal(5, 8).double().requires_grad_()
    norm = SpectralNorm(weight).double()
    for _ in range(2000):
        norm(weight)
    direction = normal(5, 8, seed=2).double()
    (found,) = torch.autograd.grad((norm(weight) * direction).sum(), weight)
    (expected,) = torch.autograd.grad((weight / torch.linalg.matrix_norm(weight, ord=2) * direction).sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_mean_of_singular_vectors_serves_as_well():
    """A moving average lerps buffers: the mean of unit vectors is none, and must not change what the weight is."""
    torch.manual_seed(0)
    layer = at_rest(spectral_normalise(nn.Linear(9, 7))).eval()
    before = layer.weight.detach().clone()
    layer.parametrizations.weight[0].u.mul_(0.3)  # type: ignore[index, union-attr]
    torch.testing.assert_close(layer.weight.detach(), before)


def test_each_layer_of_the_discriminator_is_no_steeper_than_one():
    torch.manual_seed(0)
    network = at_rest(ResNetDiscriminator((3, 16, 16), width=8, attention=1, num_classes=3)).eval()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 2 + 1 + 3 + 4 + 2 + 2  # two halvings with shortcuts, one block without, attention, head
    for layer in layers:
        assert largest_singular_value(layer.weight.flatten(1)) == pytest.approx(1, abs=0.01)
        if isinstance(layer, nn.Linear):
            a, b = normal(50, layer.in_features, seed=1), normal(50, layer.in_features, seed=2)
            moved = (layer(a) - layer(b)).detach().norm(dim=1)
            assert bool((moved <= 1.01 * (a - b).norm(dim=1)).all())


def test_the_sagan_generator_is_normalised_and_its_class_gains_are_not():
    network = ResNetGenerator((3, 16, 16), latent=4, width=8, attention=1, spectral=True, num_classes=3)
    for module in network.modules():
        normalised = nn.utils.parametrize.is_parametrized(module)
        assert normalised == isinstance(module, nn.Conv2d | nn.Linear)


def families(num_classes: int = 3) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    return {
        "resnet": (ResNetGenerator((3, 16, 16), latent=8, width=8, attention=1, spectral=True, num_classes=3), (8,)),
        "biggan": (BigGANGenerator((3, 16, 16), latent=8, width=8, shared=4, num_classes=3), (8,)),
        "discriminator": (ResNetDiscriminator((3, 16, 16), width=8, attention=1, num_classes=3), (3, 16, 16)),
    }


@pytest.mark.parametrize("family", ["resnet", "biggan", "discriminator"])
def test_normalised_networks_are_copied_saved_and_called_twice(family: str):
    network, shape = families()[family]
    labels, given = torch.tensor([0, 1, 2, 0]), normal(4, *shape)
    loss = output(away_from_the_start(network)(given, labels)).sum() + output(network(2 * given, labels)).square().sum()
    loss.backward()  # the second call moved the singular vectors that the first one used
    assert all(weight.grad is not None for weight in network.parameters())
    duplicate = copy.deepcopy(network)
    file = safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()})
    other = families()[family][0]
    other.load_state_dict(safetensors.torch.load(file))
    in_training = output(network.train()(given, labels))
    afterwards = output(network.eval()(given, labels))
    assert torch.equal(afterwards, output(network(given, labels))), "nothing moves once the training is over"
    for twin in (duplicate, other):
        assert torch.equal(in_training, output(twin.train()(given, labels)))
        assert all(torch.equal(a, twin.state_dict()[name]) for name, a in network.state_dict().items())
        assert torch.equal(afterwards, output(twin.eval()(given, labels)))


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (5, 3)], ids=str)
def test_attention_is_what_a_loop_over_places_makes(size: tuple[int, int]):
    torch.manual_seed(1)
    layer, x = SelfAttention(16).double(), normal(2, 16, *size).double()
    assert torch.equal(layer(x), x), "the gain is zero at the start"
    nn.init.constant_(layer.gain, 0.7)
    query, key, value, out = (w.weight.detach()[:, :, 0, 0] for w in (layer.query, layer.key, layer.value, layer.out))
    assert (len(query), len(key), len(value)) == (2, 2, 8)
    rows, columns = size
    corners = [(r, c) for r in range(0, rows, 2) for c in range(0, columns, 2)]

    def pooled(matrix: Tensor, item: Tensor) -> list[Tensor]:
        made = torch.einsum("oc,chw->ohw", matrix, item)
        return [made[:, r : r + 2, c : c + 2].amax((1, 2)) for r, c in corners]

    expected = x.clone()
    for item in range(2):
        keys, values = pooled(key, x[item]), pooled(value, x[item])
        for row in range(rows):
            for column in range(columns):
                q = query @ x[item, :, row, column]
                powers = [math.exp(float(q @ k)) for k in keys]
                seen = sum(power / sum(powers) * v for power, v in zip(powers, values, strict=True))
                expected[item, :, row, column] += 0.7 * out @ seen
    torch.testing.assert_close(layer(x).detach(), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)], ids=str)
def test_a_fused_doubling_or_halving_is_the_one_it_stands_for(size: tuple[int, int]):
    torch.manual_seed(2)
    layer, x = nn.Conv2d(5, 7, 3, 1, 1).double(), normal(2, 5, *size).double()
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(double_then_convolve(x, layer), layer(doubled))
    torch.testing.assert_close(convolve_then_halve(doubled, layer), F.avg_pool2d(layer(doubled), 2))


def test_blocks_are_those_of_the_paper():
    torch.manual_seed(3)
    up = UpBlock(4, 6, (ClassNorm(4, 0), ClassNorm(6, 0))).double()
    x = normal(3, 4, 5, 5).double()
    y = up.first(F.interpolate(F.relu(up.norms[0](x, None)), scale_factor=2))
    expected = up.second(F.relu(up.norms[1](y, None))) + up.shortcut(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(up(x, None), expected)
    x = normal(3, 4, 6, 6).double()
    for first in (True, False):
        down = DownBlock(4, 6, hidden=5, halves=True, first=first).double()
        y = down.second(F.relu(down.first(x if first else F.relu(x))))
        torch.testing.assert_close(down(x), F.avg_pool2d(y + down.shortcut(x), 2))
    plain = DownBlock(4, 4, hidden=4, halves=False).double()
    torch.testing.assert_close(plain(x), x + plain.second(F.relu(plain.first(F.relu(x)))))


def standardised(x: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    return (x - mean) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()


def test_conditional_normalisation_is_its_formula():
    torch.manual_seed(4)
    x, labels = normal(4, 3, 5, 5), torch.tensor([1, 0, 1, 2])
    by_class, by_vector, condition = ClassNorm(3, 3), ConditionNorm(3, 6), normal(4, 6, seed=5)
    assert by_class.embedding is not None
    nn.init.normal_(by_class.embedding.weight)
    numbers = by_class.embedding.weight.detach()[labels][:, :, None, None]
    torch.testing.assert_close(
        by_class(x, labels).detach(), standardised(x) * (1 + numbers[:, :3]) + numbers[:, 3:], rtol=1e-4, atol=1e-5
    )
    gain, bias = ((condition @ w.weight.detach().T)[:, :, None, None] for w in (by_vector.gain, by_vector.bias))
    expected = standardised(x) * (1 + gain) + bias
    torch.testing.assert_close(by_vector(x, condition).detach(), expected, rtol=1e-4, atol=1e-5)


def test_each_part_of_the_latent_reaches_its_own_block():
    torch.manual_seed(5)
    network = BigGANGenerator((1, 32, 32), latent=10, width=4, shared=5, num_classes=3).eval()
    assert network.parts == [3, 3, 2, 2]
    given: dict[int, Tensor] = {}
    for number, block in enumerate(network.blocks, start=1):
        block.register_forward_pre_hook(lambda _, args, number=number: given.__setitem__(number, args[1]))
    latent, labels = normal(2, 10), torch.tensor([2, 0])
    network(latent, labels)
    shared = network.condition.embedding.weight[labels]  # type: ignore[union-attr]
    for number, columns in enumerate([slice(3, 6), slice(6, 8), slice(8, 10)], start=1):
        torch.testing.assert_close(given[number], torch.cat([latent[:, columns], shared], 1))
    with pytest.raises(ValueError, match="latent of 3 cannot be cut into 4"):
        BigGANGenerator((1, 32, 32), latent=3, width=4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)], ids=str)
@pytest.mark.parametrize("family", ["resnet", "biggan", "discriminator"])
def test_the_class_enters_on_grids_of_every_size(family: str, shape: tuple[int, int, int]):
    torch.manual_seed(6)
    network = {
        "resnet": lambda: ResNetGenerator(shape, latent=8, width=8, num_classes=3),
        "biggan": lambda: BigGANGenerator(shape, latent=8, width=8, num_classes=3),
        "discriminator": lambda: ResNetDiscriminator(shape, width=8, num_classes=3),
    }[family]()
    given = normal(2, *(shape if family == "discriminator" else (8,)))
    one, other = (output(away_from_the_start(network).eval()(given, torch.full((2,), label))) for label in (0, 2))
    assert not torch.allclose(one, other)


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_sngan_has_the_size_of_the_papers_table_for_cifar10():
    """Miyato et al. 2018, table 4, counted by hand; a 3x3 convolution of 256 to 256 has 9 * 256² + 256 = 590,080.

    Generator: linear 128 * 4096 + 4096 = 528,384; three blocks of two such convolutions, a 1x1 of 256² + 256 = 65,792
    and two norms of 512; norm 512; to three channels 9 * 256 * 3 + 3 = 6,915.
    Discriminator: first block 3,584 + 147,584 + 512; one that halves 2 * 147,584 + 16,512; two without shortcut
    2 * 147,584 each; linear 129.
    """
    generator = ResNetGenerator((3, 32, 32), latent=128, width=256, flat=True)
    discriminator = ResNetDiscriminator((3, 32, 32), width=128, flat=True)
    assert parameters(generator) == 528_384 + 3 * (2 * 590_080 + 65_792 + 2 * 512) + 512 + 6_915 == 4_276_739
    assert parameters(discriminator) == 151_680 + 311_680 + 2 * 295_168 + 129 == 1_053_825


@pytest.fixture
def no_numbers(monkeypatch: pytest.MonkeyPatch):
    """Initialising 90 million weights takes long, and only their number is asked for."""
    for name in ("orthogonal_", "xavier_uniform_", "kaiming_uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda weight, *_, **__: weight)


@pytest.mark.usefixtures("no_numbers")
def test_biggan_and_sagan_have_the_sizes_that_are_published_for_imagenet_at_128():
    """BigGAN's authors' code prints 70,433,988 and 87,982,370; table 1 of arXiv:1809.11096 has 158.3 million.

    The same table has 81.5 million for both networks of SAGAN (first row).
    """
    shape, classes = (3, 128, 128), 1000
    assert parameters(BigGANGenerator(shape, latent=120, width=96, num_classes=classes)) == 70_433_988
    biggan = ResNetDiscriminator(shape, width=96, attention=1, wide=True, num_classes=classes)
    assert parameters(biggan) == 87_982_370
    generator = ResNetGenerator(shape, latent=128, width=64, attention=2, spectral=True, num_classes=classes)
    discriminator = ResNetDiscriminator(shape, width=64, attention=2, wide=True, num_classes=classes)
    assert round((parameters(generator) + parameters(discriminator)) / 1e6, 1) == 81.5


@pytest.mark.usefixtures("no_numbers")
def test_attention_stands_where_the_papers_have_it():
    """On 32 x 32 of 128 x 128 in SAGAN (table 1: feat32), on 64 x 64 in BigGAN (table 4)."""
    shape, seen = (3, 128, 128), []
    for network, given in (
        (ResNetGenerator(shape, latent=8, width=1, attention=2), torch.zeros(1, 8)),
        (ResNetDiscriminator(shape, width=1, attention=2), torch.zeros(1, *shape)),
        (BigGANGenerator(shape, latent=8, width=1), torch.zeros(1, 8)),
        (ResNetDiscriminator(shape, width=1, attention=1), torch.zeros(1, *shape)),
    ):
        assert isinstance(network.attention, SelfAttention)
        network.attention.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[2]))
        network.eval()(given)
    assert seen == [32, 32, 64, 64]


def test_orthogonal_regularisation_is_its_formula_and_spares_embeddings():
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 2), nn.Linear(2, 7), nn.Embedding(5, 3))
    expected = 0.0
    for weight in (network[0].weight, network[1].weight, network[2].weight):
        rows = weight.detach().flatten(1)
        for i in range(len(rows)):
            expected += sum(float(rows[i] @ rows[j]) ** 2 for j in range(len(rows)) if j != i)
    assert float(OrthogonalRegularisation()(network).detach()) == pytest.approx(expected, rel=1e-5)
    nn.init.orthogonal_(network[0].weight)
    network[1].weight.data = torch.tensor([[3.0, 0, 0, 0], [0, 0, -2.0, 0]])
    assert float(OrthogonalRegularisation()(network[:2]).detach()) == pytest.approx(0, abs=1e-10)
    with pytest.raises(ValueError, match="there are none"):
        OrthogonalRegularisation()(nn.Embedding(3, 3))


def test_orthogonal_regularisation_looks_at_the_stored_weights_and_moves_nothing():
    torch.manual_seed(7)
    plain = nn.Linear(6, 4)
    normalised = spectral_normalise(copy.deepcopy(plain))
    before = {name: value.clone() for name, value in normalised.state_dict().items()}
    term = OrthogonalRegularisation()(normalised)
    assert float(term.detach()) == pytest.approx(float(OrthogonalRegularisation()(plain).detach()))
    assert all(torch.equal(value, normalised.state_dict()[name]) for name, value in before.items())
    term.backward()
    assert all(w.grad is not None for name, w in normalised.named_parameters() if "bias" not in name)


@pytest.mark.parametrize("name", ["sngan", "sagan", "biggan"])
def test_a_training_taken_up_again_has_the_same_bits(name: str):
    spec = Spec("image", (1, 16, 16), classes=("a", "b"))
    setting = Setting(spec, num_items=50, device="cpu", conditional=True)
    plan, runtime = recipes.find(name)(width=8, latent=8, batch_items=4).plan(setting), Runtime()

    def train(state: State, steps: int) -> State:
        for _ in range(steps):
            count = plan.batch_items * plan.discriminator_steps
            batch = {"real": normal(count, 1, 16, 16, seed=state.items_seen), "label": torch.arange(count) % 2}
            step(state, plan, runtime.move(batch), runtime, 0)
        return state

    whole, half = (train(create(plan, runtime, 0, 1000), steps) for steps in (4, 2))
    again = create(plan, runtime, 1, 1000)
    files = {group: safetensors.torch.save(whole_group) for group, whole_group in stored(half).items()}
    restore(again, {group: safetensors.torch.load(file) for group, file in files.items()}, to_facts(half))
    ours, theirs = to_tensors(whole), to_tensors(train(again, 2))
    for group, tensors in ours.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, theirs[group][key]), f"{group} {key}"


def stored(state: State) -> dict[str, dict[str, Tensor]]:
    return {group: {k: v.contiguous() for k, v in tensors.items()} for group, tensors in to_tensors(state).items()}


def test_the_average_of_a_normalised_generator_samples_well_within_training():
    """Its layers are normalised too, though its singular vectors are averages of those of the generators it is of."""
    setting = Setting(Spec("image", (1, 16, 16)), num_items=50, device="cpu")
    plan, runtime = recipes.find("biggan")(width=8, latent=8, batch_items=4).plan(setting), Runtime()
    state = create(plan, runtime, 0, 1000)
    for number in range(5):
        step(state, plan, runtime.move({"real": normal(4, 1, 16, 16, seed=number)}), runtime, 0)
    layers = [layer for layer in state.average.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) > 10
    for layer in layers:
        found = largest_singular_value(layer.weight.flatten(1))
        assert found == pytest.approx(1, abs=0.15), "as near as fifteen iterations at the start and ten since bring it"
