"""Trained networks against the code of others, the layers of torch, and the classes of real pictures."""

import io
import lzma
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ganlib.errors import DataError
from ganlib.metrics.features import features
from ganlib.metrics.nets.cifar_resnet import CifarResNet
from ganlib.metrics.nets.dinov2 import DinoV2, positions
from ganlib.metrics.nets.inception import InceptionV3
from ganlib.metrics.nets.mobilenet import MobileNetV1
from ganlib.metrics.prepare import IMAGENET_MEAN, IMAGENET_SCALE, Preparation, resize_clean, resize_tf1
from ganlib.metrics.trained import NetworkFeatures, from_file
from other_libraries import torch_fidelity

LEVELS = Preparation(299, "tf1", (128.0, 128.0, 128.0), (128.0, 128.0, 128.0))


def levels(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=rng).float()


def shaken(network: nn.Module) -> nn.Module:
    """The same network with all that training would move: statistics, scales and offsets too."""
    rng = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "bn.weight", "gamma", "norm.weight", "norm1.weight", "norm2.weight")):
            value.uniform_(0.5, 2, generator=rng)
        elif name.endswith(("running_mean", "bias", "cls_token", "pos_embed")):
            value.normal_(0, 0.3, generator=rng)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inception() -> InceptionV3:
    torch.manual_seed(0)
    network = shaken(InceptionV3())
    assert isinstance(network, InceptionV3)
    return network


def tf1_by_loops(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape
    result = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y, x = i * height / side, j * width / side
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - (x - left)) + image[bottom, right] * (x - left)
            result[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return result


@pytest.mark.parametrize(("height", "width", "side"), [(5, 7, 16), (32, 32, 29), (20, 31, 8), (1, 1, 4), (9, 9, 9)])
def test_tf1_resize_is_the_loops(height: int, width: int, side: int) -> None:
    images = levels(2, 3, height, width)
    expected = tf1_by_loops(images[1, 2].numpy().astype(float), side)
    np.testing.assert_allclose(resize_tf1(images, side)[1, 2].numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("size", [(17, 23), (64, 48), (8, 8)])
@pytest.mark.parametrize("side", [24, 31])
def test_clean_resize_is_that_of_pillow(size: tuple[int, int], side: int) -> None:
    image = levels(1, 1, *size)
    theirs = Image.fromarray(image[0, 0].numpy()).resize((side, side), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(resize_clean(image, side)[0, 0].numpy(), np.asarray(theirs).clip(0, 255), atol=2e-3)


def test_preparation_makes_levels_of_values_and_colours_of_grey() -> None:
    images = levels(2, 1, 6, 6)
    seen = Preparation(None, "clean", IMAGENET_MEAN, IMAGENET_SCALE)((images - 127.5) / 127.5)
    for channel, (mean, scale) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        torch.testing.assert_close(seen[:, channel], (images[:, 0] / 255 - mean) / scale, rtol=1e-5, atol=1e-5)
    for shape in [(2, 2, 6, 6), (2, 4, 6, 6), (2, 3)]:
        with pytest.raises(DataError, match="1 or 3 channels"):
            LEVELS(torch.zeros(shape))


def test_inception_is_that_of_torch_fidelity(inception: InceptionV3, tmp_path: Path) -> None:
    theirs = torch_fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    torch.save(inception.state_dict(), tmp_path / "weights.pth")
    layers = ["2048", "logits_unbiased", "logits"]
    reference = theirs("same weights", layers, feature_extractor_weights_path=str(tmp_path / "weights.pth"))
    images = levels(2, 3, 40, 33)
    for layer, expected in zip(("pool", "logits-unbiased", "logits"), reference(images.byte()), strict=True):
        network = InceptionV3(layer)  # type: ignore[arg-type]
        network.load_state_dict(inception.state_dict())
        extractor = NetworkFeatures(network, layer, LEVELS)
        torch.testing.assert_close(extractor((images - 127.5) / 127.5), expected, rtol=1e-5, atol=1e-6)


def test_inception_has_the_tensors_of_the_published_file(inception: InceptionV3) -> None:
    """94 convolutions with six tensors each, and the last layer; 23.9 million numbers, the size of that file."""
    tensors = inception.state_dict()
    assert len(tensors) == 94 * 6 + 2
    assert tensors["fc.weight"].shape == (1008, 2048)
    assert tensors["Mixed_6c.branch7x7dbl_2.conv.weight"].shape == (160, 160, 7, 1)
    assert tensors["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert 0 < 95_628_359 - num_bytes < 566 * 256  # the rest are names and headers


def test_inception_pools_as_the_graph_does(inception: InceptionV3) -> None:
    """What enters and what reaches the pooled branch of each block: means of the neighbours there are, maxima last."""
    seen: dict[str, Tensor] = {}
    blocks = ["Mixed_5b", "Mixed_5c", "Mixed_5d", *(f"Mixed_6{letter}" for letter in "bcde"), "Mixed_7b", "Mixed_7c"]
    hooks = []
    for name in [*blocks, *(f"{block}.branch_pool" for block in blocks)]:

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            seen[name] = inputs[0]

        hooks.append(inception.get_submodule(name).register_forward_pre_hook(keep))
    output = inception(LEVELS(levels(1, 3, 64, 64) / 127.5 - 1))
    for hook in hooks:
        hook.remove()
    assert output.shape == (1, 2048)
    for block in blocks:
        maps = seen[block][0].numpy()
        height, width = maps.shape[1:]
        for row, column in [(0, 0), (0, 3), (4, width - 1), (height - 1, width - 1), (3, 3)]:
            near = maps[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            expected = near.max((1, 2)) if block == "Mixed_7c" else near.mean((1, 2))
            actual = seen[f"{block}.branch_pool"][0, :, row, column].numpy()
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=block)


def cubic_by_loops(grid: np.ndarray, rows: int) -> np.ndarray:
    """Keys' cubic with a = -3/4 at (i + 1/2) · side / (rows + 0.1) - 1/2, edges repeated."""

    def kernel(t: float) -> float:
        a, t = -0.75, abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    side = len(grid)
    weights = np.zeros((rows, side))
    for i in range(rows):
        place = (i + 0.5) * side / (rows + 0.1) - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[i, min(max(j, 0), side - 1)] += kernel(place - j)
    return np.einsum("ri,sj,ijc->rsc", weights, weights, grid)


@pytest.mark.parametrize("rows", [3, 7, 16])
def test_positions_are_interpolated_as_the_published_features_were(rows: int) -> None:
    learned = torch.randn(1, 1 + 9 * 9, 5, generator=torch.Generator().manual_seed(0))
    grid = learned[0, 1:].reshape(9, 9, 5).double().numpy()
    result = positions(learned, 9, rows, rows)
    assert result[:, :1].equal(learned[:, :1]) and result.shape == (1, 1 + rows**2, 5)
    np.testing.assert_allclose(result[0, 1:].numpy(), cubic_by_loops(grid, rows).reshape(-1, 5), atol=2e-5)
    assert positions(learned, 9, 9, 9).equal(learned)


def test_dinov2_is_the_encoder_of_torch_with_scaled_branches() -> None:
    """nn.TransformerEncoderLayer has no learned scale; it is folded into the last matrix of each branch."""
    torch.manual_seed(0)
    network = shaken(DinoV2(48, 4, depth=3, positions_side=3))
    images = torch.randn(2, 3, 42, 42, generator=torch.Generator().manual_seed(2))
    weights = network.state_dict()
    patches = F.unfold(images, 14, stride=14).mT @ weights["patch_embed.proj.weight"].flatten(1).T
    patches = patches + weights["patch_embed.proj.bias"]
    tokens = torch.cat([weights["cls_token"].expand(2, 1, 48), patches], 1) + weights["pos_embed"]
    for index in range(3):
        mine = {name.removeprefix(f"blocks.{index}."): value for name, value in weights.items()}
        layer = nn.TransformerEncoderLayer(48, 4, 192, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True).train()
        scale1, scale2 = mine["ls1.gamma"], mine["ls2.gamma"]
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": mine["attn.qkv.weight"],
                "self_attn.in_proj_bias": mine["attn.qkv.bias"],
                "self_attn.out_proj.weight": mine["attn.proj.weight"] * scale1[:, None],
                "self_attn.out_proj.bias": mine["attn.proj.bias"] * scale1,
                "linear1.weight": mine["mlp.fc1.weight"],
                "linear1.bias": mine["mlp.fc1.bias"],
                "linear2.weight": mine["mlp.fc2.weight"] * scale2[:, None],
                "linear2.bias": mine["mlp.fc2.bias"] * scale2,
                **{
                    f"{norm}.{part}": mine[f"{norm}.{part}"]
                    for norm in ("norm1", "norm2")
                    for part in ("weight", "bias")
                },
            }
        )
        tokens = layer(tokens)
    expected = F.layer_norm(tokens[:, 0], (48,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "num_heads", "num_numbers"), [(384, 6, 22_056_192), (768, 12, 86_579_712)])
def test_dinov2_has_the_tensors_of_the_published_files(width: int, num_heads: int, num_numbers: int) -> None:
    """Counted by hand for width w: 12 blocks of 12 w² + 15 w, patches of 588 w + w, 1370 positions, class, norm.

    The files (88,283,115 and 346,378,731 bytes) also hold one mask token of w numbers.
    """
    w = width
    assert num_numbers == 12 * (12 * w**2 + 15 * w) + 589 * w + 1370 * w + w + 2 * w
    with torch.device("meta"):
        tensors = DinoV2(width, num_heads).state_dict()
    assert sum(tensor.numel() for tensor in tensors.values()) == num_numbers
    file_bytes = {384: 88_283_115, 768: 346_378_731}[width]
    assert 0 < file_bytes - 4 * (num_numbers + width) < 100_000
    for name in ("cls_token", "blocks.11.ls2.gamma", "blocks.0.attn.qkv.bias", "blocks.3.mlp.fc2.weight", "norm.bias"):
        assert name in tensors
    assert tensors["patch_embed.proj.weight"].shape == (width, 3, 14, 14)


@pytest.mark.parametrize("side", [32, 33, 47])
def test_mobilenet_pads_as_tensorflow_does(side: int) -> None:
    """The first convolution at stride 2 by loops over SAME: ceil(size / 2) outputs, the odd zero after the picture."""
    torch.manual_seed(0)
    network = MobileNetV1(0.25)
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    weight = network.state_dict()["conv1.weight"]
    result = network.get_submodule("conv1")(image)
    out = -(-side // 2)
    before = ((out - 1) * 2 + 3 - side) // 2
    padded = np.zeros((3, side + 3, side + 3), np.float32)
    padded[:, before : before + side, before : before + side] = image[0].numpy()
    assert result.shape == (1, 8, out, out)
    for row, column in [(0, 0), (0, out - 1), (out - 1, out - 1), (5, 9)]:
        window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        expected = (weight.detach().numpy() * window).sum((1, 2, 3))
        np.testing.assert_allclose(result[0, :, row, column].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_published_sizes_of_the_small_networks() -> None:
    """Parameters as the papers count them: 0.27 and 0.85 million (He et al., table 6), 4.2 million (Howard et al.)."""

    def millions(network: nn.Module) -> float:
        return sum(parameter.numel() for parameter in network.parameters()) / 1e6

    assert millions(CifarResNet(3)) == pytest.approx(0.27, abs=0.005)
    assert millions(CifarResNet(9)) == pytest.approx(0.85, abs=0.01)
    assert millions(MobileNetV1(1.0)) == pytest.approx(4.2, abs=0.05)
    assert millions(MobileNetV1(0.75)) == pytest.approx(2.6, abs=0.05)


@pytest.fixture(scope="module")
def cifar() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Real pictures in [-1, 1] and their classes, bit-exact: 1,500 for training a probe and 932 for testing."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10" / "cifar10_lossless_subset.npz.xz"
    if not path.is_file():
        pytest.skip(f"no real pictures at {path}; this test reads them from there")
    with lzma.open(path) as file:
        stored = np.load(io.BytesIO(file.read()))
    pictures, labels = {}, {}
    for split, count in (("train", 1500), ("test", 932)):
        pixels = torch.from_numpy(stored[f"{split}_images"][:count]).permute(0, 3, 1, 2)
        pictures[split] = (pixels.float() - 127.5) / 127.5
        labels[split] = torch.from_numpy(stored[f"{split}_labels"][:count].astype(np.int64))
    return pictures, labels


@pytest.mark.parametrize(
    ("file", "published", "count"), [("cifar10_resnet20.npz", 0.918, 932), ("cifar10_resnet56.npz", 0.936, 400)]
)
def test_cifar_resnets_recognise_real_pictures(
    file: str, published: float, count: int, cifar: tuple[dict[str, Tensor], dict[str, Tensor]], shared_data: Path
) -> None:
    """Within two standard errors of the accuracy that is published, on all 10,000 pictures."""
    pictures, labels = cifar
    extractor = from_file(shared_data / "feature_nets" / file, layer="logits")
    found = features(extractor, [pictures["test"][:count]]).argmax(1)
    error = math.sqrt(published * (1 - published) / count)
    assert (found == labels["test"][:count]).double().mean().item() == pytest.approx(published, abs=2 * error)


@pytest.mark.parametrize("file", ["mobilenet_v1_075_imagenet.npz", "mobilenet_v1_100_trunk_imagenet.npz"])
def test_mobilenet_features_tell_real_classes_apart(
    file: str, cifar: tuple[dict[str, Tensor], dict[str, Tensor]], shared_data: Path
) -> None:
    """A ridge regression on 600 pictures: trained features find 6 in 10 of 300 others; 1 in 10 would be chance."""
    pictures, labels = cifar
    extractor = from_file(shared_data / "feature_nets" / file, side=64)
    train = features(extractor, [pictures["train"][:600]])
    test = features(extractor, [pictures["test"][:300]])
    train, test = (
        F.pad((rows - train.mean(0)) / train.std(0).clamp(min=1e-6), (0, 1), value=1.0) for rows in (train, test)
    )
    targets = F.one_hot(labels["train"][:600], 10).double()
    solution = torch.linalg.solve(train.T @ train + 300 * torch.eye(train.shape[1]), train.T @ targets)
    accuracy = ((test @ solution).argmax(1) == labels["test"][:300]).double().mean().item()
    assert accuracy > 0.6
