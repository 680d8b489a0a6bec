"""A trained model: what is needed to draw and to judge, in memory and as one file.

A ``.gan`` file is a zip of ``model.json``, ``generator.safetensors``, ``discriminator.safetensors`` (for scores) and
``manifest.json`` with the SHA-256 of each. Nothing in it is code.
"""

import contextlib
import hashlib
import io
import json
import platform
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ganlib import __version__, recipes, remedies
from ganlib.core import Plan, Spec
from ganlib.errors import DamagedError, MissingError, RunError
from ganlib.files import write_bytes
from ganlib.recipe import Recipe, Setting
from ganlib.sampling import Sampler, chunk_items
from ganlib.spec import Attribute
from ganlib.training import checkpoint
from ganlib.training.run import Run
from ganlib.training.runtime import Runtime
from ganlib.training.state import load_weights

FORMAT = 1
LIMIT_BYTES = 64 * 2**30


@dataclass(frozen=True)
class Model:
    """A recipe made concrete and its trained networks; `generator` is the moving average."""

    recipe: Recipe
    setting: Setting
    plan: Plan
    generator: nn.Module
    discriminator: nn.Module | None
    device: str
    label_share: tuple[float, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None  # of the run it was read from
    notices: tuple[str, ...] = ()  # what the user should know of how it was read

    @property
    def given_spec(self) -> Spec:
        """What the generator makes items of, where it makes items of items."""
        return self.plan.task.given(self.setting.spec)

    @property
    def sampler(self) -> Sampler:
        chunk = chunk_items(self.setting.spec.shape)
        return Sampler(self.plan.task, self.generator, self.device, self.label_share, chunk)


def to_json(recipe: Recipe, setting: Setting, label_share: tuple[float, ...], seed: int) -> dict[str, Any]:
    """All that rebuilds the networks, and what they were made with."""
    return {
        "format": FORMAT,
        "recipe": recipe.to_json(),
        "setting": asdict(setting),
        "label_share": list(label_share),
        "seed": seed,
        "made_with": made_with(),
    }


def made_with() -> dict[str, Any]:
    """Versions and machine, as far as they decide the bits of a result."""
    return {
        "ganlib": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def from_json(value: Any, where: str) -> tuple[Recipe, Setting, tuple[float, ...]]:
    """The recipe, setting and label shares of :func:`to_json`. Raises :class:`RunError` for what does not fit."""
    try:
        if value["format"] > FORMAT:
            raise RunError(
                f"{where} was written by ganlib {value['made_with']['ganlib']}, this is {__version__}; upgrade"
            )
        recipe = recipes.find(value["recipe"]["name"])(**value["recipe"]["options"]).with_remedies(
            *(remedies.find(each["name"])(**each["options"]) for each in value["recipe"].get("remedies", ()))
        )
        size, spec = value["setting"]["size"], _spec(value["setting"]["spec"])
        setting = Setting(**{**value["setting"], "spec": spec, "size": None if size is None else tuple(size)})
        return recipe, setting, tuple(float(share) for share in value["label_share"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{where} does not describe a model of this version of ganlib ({error})") from error


def _spec(value: Mapping[str, Any]) -> Spec:
    given: dict[str, Any] = {key: tuple(part) if isinstance(part, list) else part for key, part in value.items()}
    condition, attributes = value.get("condition"), tuple(Attribute(**each) for each in value.get("attributes", ()))
    return Spec(**{**given, "condition": None if condition is None else _spec(condition), "attributes": attributes})


def build(value: Any, tensors: Mapping[str, Mapping[str, Tensor]], device: str, where: str) -> Model:
    """The model that `value` describes, with these weights (``generator``, and ``discriminator`` if there is one)."""
    recipe, setting, label_share = from_json(value, where)
    plan, runtime = recipe.plan(setting), Runtime(device)
    with torch.random.fork_rng(devices=[]):  # the weights at the start are thrown away: leave the user's dice alone
        generator, discriminator = plan.task.networks()
    load_weights(generator, tensors.get("generator", {}), f"generator in {where}")
    if discriminator is not None and "discriminator" in tensors:
        load_weights(discriminator, tensors["discriminator"], f"discriminator in {where}")
        discriminator = runtime.place(discriminator).eval().requires_grad_(False)
    else:
        discriminator = None
    generator = runtime.place(generator).eval().requires_grad_(False)
    return Model(recipe, setting, plan, generator, discriminator, device, label_share, value)


def save(model: Model, path: Path | str, *, discriminator: bool = True) -> None:
    """Write one file, atomically. Without its discriminator it cannot score, and tells less of who was in the data."""
    parts = {"model.json": json.dumps(dict(model.facts), indent=2).encode()}
    networks = {"generator": model.generator, "discriminator": model.discriminator if discriminator else None}
    for name, network in networks.items():
        if network is not None:
            weights = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
            parts[f"{name}.safetensors"] = safetensors.torch.save(weights)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    parts["manifest.json"] = json.dumps({"format": FORMAT, "ganlib": __version__, "sha256": digests}, indent=2).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    write_bytes(Path(path), buffer.getvalue())


def load(path: Path | str, device: str) -> Model:
    """Read a ``.gan`` file or a run folder. Raises MissingError, DamagedError (digest), RunError (misfit)."""
    path = Path(path)
    if not path.exists():
        raise MissingError(f"{path} is not there; give a .gan file or a run folder")
    return from_run(path, device) if path.is_dir() else _from_file(path, device)


def from_run(folder: Path, device: str) -> Model:
    """The newest checkpoint of a run, or the best where the newest scores over a tenth worse."""
    run = Run.read(folder)
    newest, skipped = checkpoint.newest(run.checkpoints)
    if newest is None:
        raise MissingError(f"{folder} holds no checkpoint yet; train it first: ganlib fit DATA --out {folder}")
    chosen, newest_score = newest, newest.facts.get("score")
    scored = [(score, path) for path in checkpoint.listed(run.checkpoints) if (score := _score_of(path)) is not None]
    if newest_score is not None and scored and min(scored)[0] < 0.9 * newest_score:
        with contextlib.suppress(DamagedError, MissingError):  # the newest is whole, and good enough
            chosen = checkpoint.Checkpoint(min(scored)[1], *checkpoint.load(min(scored)[1]))
    weights = {"generator": chosen.tensors["average"]}
    if "discriminator" in chosen.tensors:
        weights["discriminator"] = chosen.tensors["discriminator"]
    built = build(run.read_facts("recipe.json"), weights, device, str(folder))
    return replace(built, folder=folder, notices=tuple(checkpoint.passed_over(skipped)))


def _score_of(folder: Path) -> float | None:
    try:
        return json.loads((folder / checkpoint.FACTS).read_bytes()).get("score")
    except (OSError, ValueError):
        return None


def _from_file(path: Path, device: str) -> Model:
    damaged = f"{path} is not a whole .gan file"
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > min(LIMIT_BYTES, 2 * path.stat().st_size + 2**20):
                raise DamagedError(f"{damaged}: it would unpack to more than was ever saved")
            contents = {info.filename: archive.read(info) for info in archive.infolist()}
        manifest = json.loads(contents.pop("manifest.json"))
        if manifest["format"] > FORMAT:
            raise RunError(f"{path} was written by ganlib {manifest['ganlib']}, this is {__version__}; upgrade")
        expected = manifest["sha256"]
        for name in {*contents, *expected}:
            found = hashlib.sha256(contents[name]).hexdigest() if name in contents else "nothing"
            if expected.get(name) != found:
                raise DamagedError(
                    f"{damaged}: {name} should have digest {expected.get(name)}, has {found}; copy it again"
                )
        value = json.loads(contents["model.json"])
        tensors = {
            name: safetensors.torch.load(contents[f"{name}.safetensors"])
            for name in ("generator", "discriminator")
            if f"{name}.safetensors" in contents
        }
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        if isinstance(error, DamagedError | RunError):
            raise
        raise DamagedError(f"{damaged} ({error}); copy or save it again") from error
    return build(value, tensors, device, str(path))
