"""Features from a network in an .onnx file, run by onnxruntime on the processor."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from ganlib.errors import DamagedError, DataError, UsageError
from ganlib.metrics.features import FeatureExtractor
from ganlib.metrics.prepare import IMAGENET_MEAN, IMAGENET_SCALE, Preparation, Resize, Triple
from ganlib.metrics.weights import check_file

if TYPE_CHECKING:
    import onnxruntime  # pyright: ignore[reportMissingImports]

Values = Literal["signed", "unit", "levels", "imagenet"]

RANGES: dict[Values, tuple[Triple, Triple]] = {
    "signed": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "levels": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": (IMAGENET_MEAN, IMAGENET_SCALE),
}
"""What a network expects: [-1, 1], [0, 1], [0, 255], or colours with the mean and deviation of ImageNet."""

_EXTERNAL = b"\x0a\x08location"
"""The entry of a tensor whose numbers lie in another file, as protocol buffers write it."""


@final
class OnnxFeatures(FeatureExtractor):
    """The flattened output of an .onnx file of one piece, which takes images (batch, channels, height, width).

    The first input of that form is taken unless `input_name` says another, and the first output unless `output_name`
    does. Pictures are resized to the height and width of the input, or to `side` where the file leaves them open; with
    neither they keep their size. The numbers expected are not in the file: `values` says which. The digest covers the
    file, not the version of onnxruntime, which rounds differently from one to the next.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        input_name: str | None = None,
        output_name: str | None = None,
        side: int | None = None,
        resize: Resize = "clean",
        values: Values = "signed",
    ) -> None:
        if values not in RANGES:
            raise UsageError(f"values={values!r}: accepted are {', '.join(RANGES)}")
        path = Path(path)
        check_file(path, (".onnx",))
        content = path.read_bytes()
        self.session = _session(path, content)
        self.input = _image_input(self.session, input_name, path)
        outputs = [output.name for output in self.session.get_outputs()]
        if output_name is not None and output_name not in outputs:
            raise UsageError(f"{path}: no output {output_name!r}; it has {', '.join(outputs)}")
        self.output = output_name or outputs[0]
        self.batch, self.channels, *_ = self.input.shape
        self.preparation = Preparation(_side(self.input, side, path), resize, *RANGES[values])
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._name = f"onnx-{path.stem}-{self.output}-{self.preparation.name}-{values}"

    @property
    def name(self) -> str:
        return self._name

    def digest(self) -> str:
        parts = f"{self.sha256} {self.input.name} {self.output} {self.preparation.definition}"
        return hashlib.sha256(parts.encode()).hexdigest()

    def __call__(self, items: Float[Tensor, "batch *item"]) -> Float[Tensor, "batch features"]:
        if self.channels == 1 and (items.ndim != 4 or items.shape[1] != 1):
            raise DataError(f"items of shape {tuple(items.shape)}; {self.name} takes images of 1 channel")
        images = self.preparation(items.cpu())
        images = images[:, :1] if self.channels == 1 else images
        # A batch size written into the file is almost always that of the one example it was exported with.
        pieces = images.split(1) if self.batch == 1 else [images]
        return torch.cat([self._run(piece) for piece in pieces])

    def _run(self, images: Tensor) -> Tensor:
        try:
            (rows,) = self.session.run([self.output], {self.input.name: images.contiguous().numpy()})
        except Exception as error:  # the errors of onnxruntime have no common class
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.name} cannot take images of shape {tuple(images.shape)} ({reason})") from error
        rows = torch.as_tensor(rows)
        if rows.ndim < 2 or len(rows) != len(images) or not rows.is_floating_point():
            raise DataError(f"{self.name} returned {tuple(rows.shape)} {rows.dtype}; accepted are floats (batch, ...)")
        return rows.flatten(1)


def _session(path: Path, content: bytes) -> "onnxruntime.InferenceSession":
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports] - an extra
    except ImportError as error:
        raise UsageError(f"{path}: an .onnx file needs onnxruntime; run: pip install 'ganlib[onnx]'") from error
    if _EXTERNAL in content:
        raise DataError(f"{path} keeps weights in other files; accepted is one file: export it without external data")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    # A second lock on the same door: other files would be looked for in a folder that cannot be there.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", f"{path}/none")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of onnxruntime have no common class
        raise DamagedError(f"{path} cannot be run ({str(error).splitlines()[0]}); export it again") from error


def _image_input(session: "onnxruntime.InferenceSession", name: str | None, path: Path) -> "onnxruntime.NodeArg":
    inputs = session.get_inputs()
    images = [
        candidate
        for candidate in inputs
        if candidate.type == "tensor(float)"
        and len(candidate.shape) == 4
        and (candidate.shape[1] in (1, 3) or not isinstance(candidate.shape[1], int))
        and (candidate.shape[0] == 1 or not isinstance(candidate.shape[0], int))
    ]
    chosen = [candidate for candidate in images if name is None or candidate.name == name]
    if not chosen or len(inputs) > 1:
        found = ", ".join(f"{candidate.name} {candidate.type} {candidate.shape}" for candidate in inputs)
        raise DataError(
            f"{path} takes {found}; accepted is one input of float images (batch, 1 or 3, height, width) with a batch "
            "that is open or 1"
        )
    return chosen[0]


def _side(chosen: "onnxruntime.NodeArg", side: int | None, path: Path) -> int | None:
    fixed = [size for size in chosen.shape[2:] if isinstance(size, int)]
    if len(set(fixed)) > 1:
        raise DataError(f"{path} takes images of {fixed[0]} x {fixed[1]}; accepted are square ones")
    if fixed and side not in (None, fixed[0]):
        raise UsageError(f"side={side}: {path} takes {fixed[0]}")
    if side is not None and side < 1:
        raise UsageError(f"side={side}: accepted is a whole number of at least 1, or None")
    return fixed[0] if fixed else side
