"""Extractors from weight files: which network the tensors belong to, and how it wants its pictures."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ganlib.errors import DataError, UsageError
from ganlib.metrics import encoder
from ganlib.metrics.features import FeatureExtractor, ModuleFeatures
from ganlib.metrics.fetch import PUBLISHED
from ganlib.metrics.nets import cifar_resnet, dinov2, inception, mobilenet
from ganlib.metrics.onnx_file import OnnxFeatures
from ganlib.metrics.prepare import IMAGENET_MEAN, IMAGENET_SCALE, Preparation, Resize
from ganlib.metrics.weights import SUFFIXES, check_file, load_strictly, read_weights

FILE_SUFFIXES = (*SUFFIXES, ".onnx")

ACCEPTED = "Inception-v3 of the FID, DINOv2 ViT-S/14 and ViT-B/14, MobileNet-v1, CIFAR ResNets; export others to .onnx"


@final
class NetworkFeatures(FeatureExtractor):
    """A network of a known architecture behind the preparation of its pictures. Its digest covers both."""

    def __init__(self, network: nn.Module, name: str, preparation: Preparation) -> None:
        self.preparation = preparation
        self.features = ModuleFeatures(network, f"{name}-{preparation.name}")

    @property
    def name(self) -> str:
        return self.features.name

    def digest(self) -> str:
        return hashlib.sha256(f"{self.preparation.definition} {self.features.digest()}".encode()).hexdigest()

    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        device = next(self.features.module.parameters()).device
        return self.features(self.preparation(items.to(device)))


@dataclass(frozen=True)
class _Known:
    """A network without weights, its name with the layer, how it was trained to see, and the sizes that it takes."""

    network: nn.Module
    name: str
    preparation: Preparation
    min_side: int
    multiple: int = 1
    fixed: bool = False


def from_file(
    path: str | Path,
    *,
    layer: str | None = None,
    side: int | None = None,
    resize: Resize | None = None,
    device: torch.device | str = "cpu",
) -> FeatureExtractor:
    """The extractor that a weight file holds: .safetensors, .npz, published .pth, or .onnx.

    The architecture is told by the names and shapes of the tensors. `layer` is one of the network's layers (for .onnx,
    an output), `side` the input size in pixels and `resize` the way there, where the network leaves a choice. Raises
    DataError, DamagedError, MissingError or UsageError with what is accepted.
    """
    path = Path(path)
    check_file(path, FILE_SUFFIXES)
    if path.suffix.lower() == ".onnx":
        return OnnxFeatures(path, output_name=layer, side=side, resize=resize or "clean")
    weights = read_weights(path, known_pickles={published.sha256 for published in PUBLISHED})
    if weights.metadata.get("architecture") == encoder.ARCHITECTURE:
        return encoder.from_bytes(path.read_bytes(), str(path))
    # DINOv2 was trained with masked patches; no evaluation reads their token.
    tensors = {name: tensor for name, tensor in weights.tensors.items() if name != "mask_token"}
    with torch.device("meta"):
        known = _recognised(tensors, layer, str(path))
    load_strictly(known.network, tensors, str(path))
    return NetworkFeatures(known.network.to(device), known.name, _chosen(known, side, resize))


def _recognised(tensors: Mapping[str, Tensor], layer: str | None, where: str) -> _Known:
    if "Mixed_7c.branch_pool.conv.weight" in tensors:
        return _inception(tensors, layer, where)
    if "patch_embed.proj.weight" in tensors and "blocks.0.ls1.gamma" in tensors:
        return _dinov2(tensors, layer, where)
    if "conv_dw_13.weight" in tensors and "conv1.weight" in tensors:
        return _mobilenet(tensors, layer)
    if "layer3.0.conv2.weight" in tensors and "linear.weight" in tensors and "layer4.0.conv2.weight" not in tensors:
        return _cifar_resnet(tensors, layer)
    names = ", ".join(sorted(tensors)[:3]) or "none"
    raise DataError(f"{where}: no known architecture has these tensors ({names}, ...); accepted are {ACCEPTED}")


def _inception(tensors: Mapping[str, Tensor], layer: str | None, where: str) -> _Known:
    classes = tensors["fc.weight"].shape[:1] if "fc.weight" in tensors else ()
    if classes != (inception.NUM_LOGITS,):
        raise DataError(
            f"{where}: an Inception-v3 with {classes[0] if classes else 'no'} logits; the one of the FID has "
            f"{inception.NUM_LOGITS}; give pt_inception-2015-12-05-6726825d.pth"
        )
    chosen = cast(inception.Layer, _one_of(layer, inception.InceptionV3.LAYERS))
    seen = Preparation(299, "tf1", (128.0, 128.0, 128.0), (128.0, 128.0, 128.0))
    return _Known(inception.InceptionV3(chosen), f"inception-v3-fid-{chosen}", seen, 299, fixed=True)


def _dinov2(tensors: Mapping[str, Tensor], layer: str | None, where: str) -> _Known:
    width = tensors["patch_embed.proj.weight"].shape[0]
    if width not in (384, 768) or "register_tokens" in tensors:
        extra = " with registers" if "register_tokens" in tensors else ""
        raise DataError(f"{where}: a vision transformer of width {width}{extra}; accepted are {ACCEPTED}")
    letter, num_heads = ("s", 6) if width == 384 else ("b", 12)
    chosen = _one_of(layer, dinov2.DinoV2.LAYERS)
    seen = Preparation(224, "clean", IMAGENET_MEAN, IMAGENET_SCALE)
    name = f"dinov2-vit{letter}14-{chosen}"
    return _Known(dinov2.DinoV2(width, num_heads), name, seen, dinov2.PATCH, multiple=dinov2.PATCH)


def _mobilenet(tensors: Mapping[str, Tensor], layer: str | None) -> _Known:
    multiplier = tensors["conv1.weight"].shape[0] / 32
    complete = "conv_pw_13.weight" in tensors
    layers = mobilenet.MobileNetV1.LAYERS if complete else ("pool",)
    chosen = cast(mobilenet.Layer, _one_of(layer, layers))
    # Trained at 224 pixels; at 96 it is seven times as fast and still tells the classes of CIFAR-10 apart.
    seen = Preparation(96, "clean", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
    name = f"mobilenet-v1-{multiplier:g}{'' if complete else '-trunk'}-{chosen}"
    network = mobilenet.MobileNetV1(multiplier, complete=complete, layer=chosen)
    return _Known(network, name, seen, mobilenet.MIN_SIDE)


def _cifar_resnet(tensors: Mapping[str, Tensor], layer: str | None) -> _Known:
    num_blocks = sum(name.startswith("layer3.") and name.endswith(".conv1.weight") for name in tensors)
    chosen = cast(cifar_resnet.Layer, _one_of(layer, cifar_resnet.CifarResNet.LAYERS))
    seen = Preparation(32, "clean", IMAGENET_MEAN, IMAGENET_SCALE)
    name = f"cifar-resnet{6 * num_blocks + 2}-{chosen}"
    return _Known(cifar_resnet.CifarResNet(num_blocks, layer=chosen), name, seen, 8)


def _one_of(layer: str | None, layers: tuple[str, ...]) -> str:
    if layer is None:
        return layers[0]
    if layer not in layers:
        raise UsageError(f"layer={layer!r}: accepted here are {', '.join(layers)}")
    return layer


def _chosen(known: _Known, side: int | None, resize: Resize | None) -> Preparation:
    seen = known.preparation
    if resize not in (None, "tf1", "clean"):
        raise UsageError(f"resize={resize!r}: accepted are tf1, clean")
    if side is not None and known.fixed and side != seen.side:
        raise UsageError(f"side={side}: {known.name} takes {seen.side}")
    if side is not None and (side < known.min_side or side % known.multiple):
        multiple = f", a multiple of {known.multiple}" if known.multiple > 1 else ""
        raise UsageError(f"side={side}: {known.name} takes at least {known.min_side}{multiple}")
    return replace(seen, side=side or seen.side, resize=resize or seen.resize)
