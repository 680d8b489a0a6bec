"""Weight files: what is recognised, what each refusal says, and that nothing in a file is run."""

import importlib.util
import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from ganlib.errors import DamagedError, DataError, MissingError, UsageError
from ganlib.files import digest
from ganlib.metrics import weights
from ganlib.metrics.encoder import ARCHITECTURE, learn
from ganlib.metrics.nets.cifar_resnet import CifarResNet
from ganlib.metrics.nets.dinov2 import DinoV2
from ganlib.metrics.nets.inception import InceptionV3
from ganlib.metrics.nets.mobilenet import MobileNetV1
from ganlib.metrics.prepare import Preparation, resize_clean
from ganlib.metrics.trained import NetworkFeatures, from_file
from ganlib.metrics.weights import load_strictly, read_weights

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("onnx", "onnxruntime")),
    reason="onnx and onnxruntime are not installed; pip install onnx onnxruntime",
)


def resnet(num_blocks: int = 1, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return CifarResNet(num_blocks).eval()


def tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def saved(path: Path, content: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path, metadata)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in content.items()})  # type: ignore[arg-type]
    else:
        torch.save(content, path)
    return path


@pytest.fixture
def images(rng: torch.Generator) -> Tensor:
    return (torch.randint(0, 256, (3, 3, 32, 32), generator=rng).float() - 127.5) / 127.5


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_file_gives_the_features_of_the_network_it_was_saved_from(
    suffix: str, images: Tensor, tmp_path: Path
) -> None:
    network = resnet()
    extractor = from_file(saved(tmp_path / f"net{suffix}", tensors(network)))
    mean, scale = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    with torch.no_grad():
        expected = network((images / 2 + 0.5 - mean) / scale)
    torch.testing.assert_close(extractor(images), expected, rtol=1e-4, atol=1e-5)
    assert extractor.name == "cifar-resnet8-pool-32-clean"
    assert not extractor(images).requires_grad


@pytest.mark.parametrize(
    ("network", "name", "width"),
    [
        (lambda: InceptionV3(), "inception-v3-fid-pool-299-tf1", 2048),
        (lambda: DinoV2(384, 6), "dinov2-vits14-cls-224-clean", 384),
        (lambda: MobileNetV1(0.25), "mobilenet-v1-0.25-pool-96-clean", 256),
        (lambda: MobileNetV1(0.5, complete=False), "mobilenet-v1-0.5-trunk-pool-96-clean", 512),
        (lambda: CifarResNet(3), "cifar-resnet20-pool-32-clean", 64),
    ],
)
def test_architectures_are_told_by_their_tensors(
    network, name: str, width: int, images: Tensor, tmp_path: Path
) -> None:
    content = tensors(network())
    if name.startswith("dinov2"):
        content["mask_token"] = torch.zeros(1, 384)  # of the official files; only training uses it
    before = torch.get_rng_state()
    extractor = from_file(saved(tmp_path / "any-name.safetensors", content))
    assert torch.get_rng_state().equal(before)
    assert extractor.name == name
    assert extractor(images[:1]).shape == (1, width)
    assert extractor(images[:1, :1]).shape == (1, width)  # grey


def test_vit_b_is_told_by_its_width(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = DinoV2(768, 12).state_dict()
    content = {name: torch.zeros(value.shape, dtype=torch.float16) for name, value in names.items()}
    assert from_file(saved(tmp_path / "b.safetensors", content)).name == "dinov2-vitb14-cls-224-clean"


def test_the_digest_covers_weights_and_preparation_but_not_the_container(tmp_path: Path) -> None:
    content = tensors(resnet())
    file = saved(tmp_path / "net.safetensors", content)
    without_counters = {name: value for name, value in content.items() if "num_batches" not in name}
    same = [file, saved(tmp_path / "net.npz", content), saved(tmp_path / "short.npz", without_counters)]
    assert len({from_file(path).digest() for path in same}) == 1
    content["conv1.weight"][0, 0, 0, 0] += 1e-6
    moved = from_file(saved(tmp_path / "moved.safetensors", content))
    others = [from_file(file, side=64), from_file(file, resize="tf1"), from_file(file, layer="logits"), moved]
    assert len({from_file(file).digest(), *(other.digest() for other in others)}) == 5
    seen = Preparation(32, "clean", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
    shifted = replace(seen, mean=(128.0, 127.5, 127.5))
    assert NetworkFeatures(resnet(), "net", seen).name == NetworkFeatures(resnet(), "net", shifted).name
    assert NetworkFeatures(resnet(), "net", seen).digest() != NetworkFeatures(resnet(), "net", shifted).digest()
    assert others[0].name == "cifar-resnet8-pool-64-clean" and others[1].name == "cifar-resnet8-pool-32-tf1"


def test_choices_that_a_network_does_not_leave_are_refused(tmp_path: Path) -> None:
    small = saved(tmp_path / "net.safetensors", tensors(resnet()))
    with pytest.raises(UsageError, match="layer='cls': accepted here are pool, logits"):
        from_file(small, layer="cls")
    with pytest.raises(UsageError, match="at least 8"):
        from_file(small, side=4)
    trunk = saved(tmp_path / "trunk.npz", tensors(MobileNetV1(0.25, complete=False)))
    with pytest.raises(UsageError, match=r"accepted here are pool$"):
        from_file(trunk, layer="logits")


def test_tensors_that_do_not_fit_are_refused_with_their_names(tmp_path: Path) -> None:
    def refusal(content: dict[str, Tensor]) -> str:
        with pytest.raises((DataError, DamagedError)) as caught:
            from_file(saved(tmp_path / "bad.safetensors", content))
        assert "\n" not in str(caught.value) and "bad.safetensors" in str(caught.value)
        return str(caught.value)

    good = tensors(resnet())
    assert "1 missing (bn1.bias)" in refusal({name: value for name, value in good.items() if name != "bn1.bias"})
    assert "1 extra (conv9.weight)" in refusal({**good, "conv9.weight": torch.zeros(2)})
    assert "linear.bias is (11,), not (10,)" in refusal({**good, "linear.bias": torch.zeros(11)})
    assert "bn1.bias is not finite" in refusal({**good, "bn1.bias": good["bn1.bias"] + torch.nan})
    assert "no known architecture" in refusal({"weight": torch.zeros(3)})
    assert "accepted are Inception-v3" in refusal({})
    torchvision_like = {"Mixed_7c.branch_pool.conv.weight": torch.zeros(1), "fc.weight": torch.zeros(1000, 2048)}
    assert "1000 logits; the one of the FID has 1008" in refusal(torchvision_like)
    registers = {"patch_embed.proj.weight": torch.zeros(384, 3, 14, 14), "blocks.0.ls1.gamma": torch.zeros(384)}
    assert "with registers" in refusal({**registers, "register_tokens": torch.zeros(1, 4, 384)})
    large = {**registers, "patch_embed.proj.weight": torch.zeros(1024, 3, 14, 14)}
    assert "width 1024" in refusal(large)


def test_an_encoder_of_ganlib_is_told_by_its_metadata(tmp_path: Path) -> None:
    encoder = learn(torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1, seed=0)
    (tmp_path / "encoder.safetensors").write_bytes(encoder.to_bytes())
    assert from_file(tmp_path / "encoder.safetensors").digest() == encoder.digest()
    path = saved(tmp_path / "other.safetensors", {"weight": torch.zeros(1)}, {"architecture": ARCHITECTURE})
    with pytest.raises(DamagedError, match="no encoder of ganlib"):
        from_file(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_damaged_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"net{suffix}", tensors(resnet()))
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[: len(whole) // 2], whole[:-1], b"\xff" * 4000, whole[1000:]):
        path.write_bytes(content)
        with pytest.raises((DamagedError, DataError), match="net") as caught:
            from_file(path)
        assert "\n" not in str(caught.value)


def test_an_npz_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.npz", tensors(resnet()))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    with pytest.raises((DamagedError, DataError)):
        from_file(path)


def test_headers_that_claim_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (1 << 46,)}
    np.lib.format.write_array_header_1_0(header, claim)  # type: ignore[arg-type]
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("conv1.weight.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(DamagedError, match=r"claim\.npz"):
        from_file(tmp_path / "claim.npz")
    monkeypatch.setattr(weights, "MAX_BYTES", 10_000)
    np.savez_compressed(tmp_path / "bomb.npz", weight=np.zeros(5000))
    assert (tmp_path / "bomb.npz").stat().st_size < 1000
    with pytest.raises(DataError, match="unpacks to 40,128 bytes"):
        from_file(tmp_path / "bomb.npz")


class Canary:
    """A pickle that leaves a file behind when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".npz"])
def test_a_pickle_is_refused_and_not_run(suffix: str, tmp_path: Path) -> None:
    path, footprint = tmp_path / f"net{suffix}", tmp_path / "footprint"
    if suffix == ".npz":
        np.savez(path, weight=np.array([Canary(footprint)], dtype=object))
    else:
        torch.save({"weight": Canary(footprint)}, path)
    with pytest.raises(DataError, match=r"net\.\w+ is"):
        from_file(path)
    assert not footprint.exists()
    if suffix != ".npz":
        with pytest.raises(Exception, match="Weights only load failed"):  # even if its digest were a known one
            read_weights(path, known_pickles={digest(path)})
        assert not footprint.exists()
        torch.load(path, weights_only=False)
        assert footprint.exists()  # the canary was alive


def test_a_pickle_is_read_only_where_its_digest_is_known(tmp_path: Path) -> None:
    content = tensors(resnet())
    path = saved(tmp_path / "net.pth", content)
    with pytest.raises(DataError, match=r"save its state dict with safetensors"):
        from_file(path)
    read = read_weights(path, known_pickles={digest(path)})
    assert read.tensors.keys() == content.keys()
    assert all(read.tensors[name].equal(value) for name, value in content.items())


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="is not there"):
        from_file(tmp_path / "absent.npz")
    with pytest.raises(UsageError, match=r"accepted are \.safetensors, \.npz, \.pth, \.pt, \.onnx"):
        from_file(saved(tmp_path / "net.bin", tensors(resnet())))
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UsageError, match="not a file"):
        from_file(tmp_path / "folder.npz")
    np.savez(tmp_path / "words.npz", weight=np.array(["a"]))
    with pytest.raises(DataError, match="arrays of numbers"):
        from_file(tmp_path / "words.npz")


def test_half_precision_is_widened(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = CifarResNet(1)
    content = {name: value.half() if value.is_floating_point() else value for name, value in tensors(resnet()).items()}
    load_strictly(network, content, "here")
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert network.state_dict()["conv1.weight"].equal(content["conv1.weight"].float())


def onnx_model(path: Path, weight: Tensor, *, batch: int | str = "n", size: int | str = "s", external: bool = False):
    """Convolution, then the mean over the picture; a second output is the convolution itself."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    channels = weight.shape[1]
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, channels, size, size])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("pooled", "maps")]
    initializer = [numpy_helper.from_array(weight.numpy(), "weight")]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializer)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


@needs_onnx
@pytest.mark.parametrize(("batch", "size", "channels"), [("n", "s", 3), (1, 20, 3), ("n", 20, 1)])
def test_onnx_gives_the_features_of_the_network(batch, size, channels: int, images: Tensor, tmp_path: Path) -> None:
    weight = torch.randn(5, channels, 3, 3, generator=torch.Generator().manual_seed(3))
    path = onnx_model(tmp_path / "net.onnx", weight, batch=batch, size=size)
    extractor = from_file(path)
    given = images[:, :channels]
    seen = given if size == "s" else resize_clean(given * 127.5 + 127.5, 20) / 127.5 - 1
    maps = F.conv2d(seen, weight)
    torch.testing.assert_close(extractor(given), maps.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(from_file(path, layer="maps")(given), maps.flatten(1), rtol=1e-4, atol=1e-5)
    expected = "as-is" if size == "s" else "20-clean"
    assert extractor.name == f"onnx-net-pooled-{expected}-signed"
    moved = from_file(onnx_model(tmp_path / "moved.onnx", weight + 1e-6, batch=batch, size=size))
    assert len({extractor.digest(), moved.digest(), from_file(path, layer="maps").digest()}) == 3


@needs_onnx
def test_onnx_takes_the_numbers_it_was_made_for(images: Tensor, tmp_path: Path) -> None:
    from ganlib.metrics.onnx_file import OnnxFeatures

    path = onnx_model(tmp_path / "net.onnx", torch.eye(3).view(3, 3, 1, 1))
    unit, levels = (OnnxFeatures(path, values=values)(images) for values in ("unit", "levels"))
    torch.testing.assert_close(unit, (images / 2 + 0.5).mean((2, 3)))
    torch.testing.assert_close(levels, unit * 255)
    with pytest.raises((UsageError, TypeCheckError), match="bytes"):
        OnnxFeatures(path, values="bytes")  # type: ignore[arg-type]


@needs_onnx
def test_onnx_files_that_cannot_be_used_are_refused(images: Tensor, tmp_path: Path) -> None:
    weight = torch.zeros(5, 3, 3, 3)
    path = onnx_model(tmp_path / "net.onnx", weight)
    with pytest.raises(UsageError, match="no output 'logits'; it has pooled, maps"):
        from_file(path, layer="logits")
    with pytest.raises(DataError, match="cannot take images"):
        from_file(path)(images[..., :2, :2])
    with pytest.raises(DataError, match="1 channel"):
        from_file(onnx_model(tmp_path / "grey.onnx", weight[:, :1]))(images)
    with pytest.raises(UsageError, match="side=9"):
        from_file(onnx_model(tmp_path / "fixed.onnx", weight, size=20), side=9)
    with pytest.raises(DataError, match="accepted is one input"):
        from_file(onnx_model(tmp_path / "seven.onnx", weight, batch=7))
    with pytest.raises(DataError, match="without external data"):
        from_file(onnx_model(tmp_path / "apart.onnx", weight, external=True))
    for content in (b"", b"\x00" * 100, path.read_bytes()[:-9]):
        (tmp_path / "damaged.onnx").write_bytes(content)
        with pytest.raises((DamagedError, DataError), match="damaged"):
            from_file(tmp_path / "damaged.onnx")


@needs_onnx
def test_onnx_reads_no_other_file_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first check off, as a disguised entry would have it, onnxruntime finds nothing to read."""
    from ganlib.metrics import onnx_file

    path = onnx_model(tmp_path / "apart.onnx", torch.zeros(5, 3, 3, 3), external=True)
    shutil.copy(tmp_path / "weights.bin", tmp_path / "copy.bin")
    monkeypatch.setattr(onnx_file, "_EXTERNAL", b"never in a file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DamagedError, match="cannot be run"):
        from_file(path)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is not None, reason="onnxruntime is installed")
def test_onnx_without_onnxruntime_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"anything")
    with pytest.raises(UsageError, match=r"pip install 'ganlib\[onnx\]'"):
        from_file(tmp_path / "net.onnx")
