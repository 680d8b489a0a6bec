"""The estimator: ``GAN().fit(data)``, then sample, predict, score, evaluate, save and load."""

import dataclasses
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlib import diagnosis, model, predicting, recipes
from ganlib.assess import assess_model
from ganlib.data import Data, decode, load
from ganlib.diagnosis import Diagnosis
from ganlib.editing import Wish, check_edits
from ganlib.errors import DataError, NotFittedError, UsageError
from ganlib.evaluation import Evaluation, Limits
from ganlib.fitting import exhausted, fit
from ganlib.latents.project import Projection, Search, projection
from ganlib.latents.space import items_at, space_of
from ganlib.latents.walk import walk
from ganlib.metrics.features import FeatureExtractor
from ganlib.model import Model
from ganlib.opening import Prepared, Request, prepare
from ganlib.pace import pace_of
from ganlib.penalties import item_logits
from ganlib.progress import Style, say, shown
from ganlib.reading import read_as, reader
from ganlib.recipe import Recipe
from ganlib.sampling import Sampler, check_numbers, chunk_items
from ganlib.session import CHECKPOINT_SECONDS, Session
from ganlib.stopping import stop_wishes
from ganlib.training.run import Run
from ganlib.training.runtime import Precision, Runtime, choose_device, choose_precision
from ganlib.training.team import join, lost_ones, own_device, told_apart


class GAN:
    """A generator and a discriminator trained against each other on any data that :func:`ganlib.data.load` reads.

    Args:
        recipe: a name (``ganlib recipes`` lists them), a recipe with options, or None for the default.
        seed: of weights, order and latents; None is 0, or that of the run that is taken up again.
        device: "auto", "cpu", "cuda" or "mps".
        precision: "auto" is bfloat16 where the hardware is made for it. Weights and penalties are float32 always.
        compile: compile both networks with torch.compile, where the recipe's penalties allow it.
    """

    def __init__(
        self,
        recipe: str | Recipe | None = None,
        *,
        seed: int | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        compile: bool = False,
    ) -> None:
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.precision: Precision = precision
        self.compile = compile

    def fit(
        self,
        data: object,
        labels: object = None,
        *,
        validation: float | object = None,
        items: int | None = None,
        minutes: float | None = None,
        cpu_seconds: float | None = None,
        run: Path | str | None = None,
        conditional: bool | None = None,
        size: tuple[int, int] | int | None = None,
        progress: Style = "auto",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> "GAN":
        """Train, and return self.

        Args:
            data: whatever :func:`ganlib.data.load` reads: a folder, a file, an array, a Dataset, "digits".
            labels: a class for each item, where the data do not bring them.
            validation: a share of the data to hold out (default a tenth, at most 5,000 items), or other data.
            items: stop when so many items have been seen.
            minutes: stop after this wall time; speed is measured and the schedules are fitted to it. With neither,
                the recipe says how many items are worth seeing, and training stops early when the score stands still.
            cpu_seconds: as minutes, but of this process on the processor, whoever else uses the machine.
            run: a folder for checkpoints, log and pictures. If it holds a run of the same data, that is taken up again.
            conditional: use the labels; default: where there are any.
            size: (height, width) or one number: cut and resize pictures to it.
            progress: "auto", "bar", "lines", "json" or "none".
            checkpoint_seconds: time between checkpoints.

        Raises :class:`ganlib.errors.GanlibError` in one of its kinds; after Ctrl-C it saves, then raises
        KeyboardInterrupt, and after SIGTERM or SIGHUP SystemExit of 128 and the signal's number.
        """
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed={self.seed}; accepted is 0 or more")
        device = own_device(choose_device(self.device))
        if cpu_seconds is not None and told_apart():
            raise UsageError("cpu_seconds are those of one process, and there are several; give minutes or items")
        asked = recipes.find(self.recipe)() if isinstance(self.recipe, str) else self.recipe
        request = Request(
            load=reader(data, labels, size, asked, None if run is None else Path(run)),
            size=(size, size) if isinstance(size, int) else size,
            validation=validation,
            conditional=conditional,
            pace=pace_of(items, minutes, cpu_seconds, device.split(":")[0]),
            runtime=Runtime(device, choose_precision(self.precision, device), self.compile, join(device)),
            asked=asked,
            seed=self.seed,
            run=None,
            checkpoint_seconds=checkpoint_seconds,
            in_folder=run is not None,
        )
        with lost_ones(request.runtime.team):
            if request.runtime.team.rank > 0:
                return self._train(request, "none")  # the first process alone writes and speaks
            return self._train(request, progress) if run is None else self._train_in(Path(run), request, progress)

    def sample(
        self,
        num_items: int,
        *,
        labels: object = None,
        seed: int = 0,
        truncation: float | None = None,
    ) -> np.ndarray:
        """Random items in the owner's form: [n, h, w, c] uint8 for a folder of pictures, as the array for an array.

        The first k of n items are those of k. `labels` is one class or several, by name or number, taken in turn;
        None draws them as often as in the training data (:meth:`labels` says which). `truncation` is the largest
        latent, in standard deviations: 2 and below trade variety for quality.
        """
        parts = [part for part, _ in self.stream(num_items, labels=labels, seed=seed, truncation=truncation)]
        return np.concatenate(parts)

    def stream(
        self, num_items: int, *, labels: object = None, seed: int = 0, truncation: float | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """The items of :meth:`sample` and their class numbers in chunks: a million of them in constant memory."""
        self.check_draw(num_items, seed, truncation)
        spec, chosen = self.model_.setting.spec, self._class_numbers(labels)
        for part, known in self.model_.sampler.stream(num_items, seed=seed, labels=chosen, truncation=truncation):
            yield decode(spec, part), None if known is None else known.numpy()

    def check_draw(self, num_items: int, seed: int, truncation: float | None) -> None:
        """Raises :class:`ganlib.errors.UsageError` for a model that draws nothing, and for impossible numbers."""
        if not self.model_.plan.task.draws:
            self.model_.sampler.latents(1, 0)  # says so, and what to do
        check_numbers(num_items, seed, truncation)

    def labels(self, num_items: int, *, seed: int = 0) -> np.ndarray:
        """The class numbers that :meth:`sample` draws for this seed."""
        if not self.model_.label_share:
            raise UsageError("this model was trained without labels")
        return self.model_.sampler.labels(num_items, seed).numpy()

    def latents(self, num_items: int, *, seed: int = 0) -> np.ndarray:
        """The latents that :meth:`sample` uses for this seed, float32 [n, latent]."""
        return self.model_.sampler.latents(num_items, seed).numpy()

    def predict(
        self,
        given: object,
        labels: object = None,
        *,
        direction: predicting.Direction | None = None,
        attributes: Wish | None = None,
    ) -> np.ndarray:
        """The generator as a function: of latents [n, latent], or of pictures or vectors where it takes such.

        Autoencoders reconstruct (and those of pictures take latents too), ``superres`` enlarges, ``pix2pix`` and
        ``cyclegan`` translate pictures of any size; between two sets the `direction` is AtoB unless said otherwise.
        ``attributes`` edits towards `attributes` by name (``{"age": 0.3, "class": "cat"}``), in the data's numbers.
        """
        if attributes is not None:
            check_edits(self.model_)
        if predicting.takes_latents(self.model_, given):
            return predicting.of_latents(self.model_, given, self._class_numbers(labels))
        if self.model_.plan.task.any_size:
            aim = predicting.target(self.model_, direction, self._class_numbers(labels))
            return predicting.of_pictures(self.model_, given, aim, attributes)
        return predicting.of_items(self.model_, self._as_trained(given, labels))

    def interpolate(
        self, num_steps: int, *, start: int = 0, end: int = 1, label: object = None, seed: int = 0
    ) -> np.ndarray:
        """Items along the way from the `start`-th to the `end`-th item of a seed, of one class."""
        if num_steps < 2:
            raise UsageError(f"{num_steps} steps; a way has at least 2")
        space = space_of(self.model_)
        way, condition = walk(space, [start, end], num_steps, seed=seed, label=self._class_numbers(label))
        return decode(self.model_.setting.spec, items_at(space, way, condition))

    def project(self, images: object, labels: object = None, *, steps: int = 300, seed: int = 0) -> Projection:
        """Where in the latent space pictures of the training data's kind come from, as nearly as can be found.

        Of a class each where `labels` say so. :mod:`ganlib.latents.project` has how, and what the result holds.
        """
        return projection(self.model_, self._as_trained(images, labels), Search(num_steps=steps, seed=seed))

    def score(self, items: object, labels: object = None) -> np.ndarray:
        """The discriminator's logit of each item, [n]: higher is more real. Only differences mean anything.

        It has seen the training data, and ranks them higher than others as good: a score is no proof of origin.
        """
        judge = self.model_.discriminator
        if judge is None:
            none = self.model_.plan.objective.loss is None
            why = f"recipe {self.model_.recipe.name} has no" if none else "this model was saved without its"
            raise UsageError(f"{why} discriminator; score needs one")
        given = self._as_trained(items, labels)
        if self.model_.label_share and given.labels is None:
            raise UsageError("this model judges an item together with its class: pass labels")
        made = []
        size = chunk_items(self.model_.setting.spec.shape)
        for first in range(0, len(given), size):
            numbers = np.arange(first, min(first + size, len(given)))
            full = np.resize(numbers, size)  # chunks of one size: another may round differently
            with torch.inference_mode():
                verdict = judge(*self.model_.sampler.judged(given.batch(full)))
                made.append(item_logits(verdict)[: len(numbers)].cpu())
        return torch.cat(made).numpy()

    def evaluate(
        self,
        data: object,
        *,
        train: object = None,
        num_items: int = 10_000,
        extractor: FeatureExtractor | None = None,
        seed: int = 0,
        truncation: float | None = None,
        limits: Limits | None = None,
    ) -> Evaluation:
        """Five questions about the samples, answered by held-out data: good, covered, copied, private, recognisable?

        Args:
            data: real items that were not trained on; without some hundreds little is measured.
            train: the training data, without which nobody can look for copies; after fit they are known.
            num_items: at most so many samples; 10,000 are the most that are used.
            extractor: what is compared; None learns an encoder from the training data, in seconds.
            seed: of the samples and of all else that is drawn at random.
            truncation: as in :meth:`sample`.
            limits: what is tolerated, :class:`ganlib.evaluation.Limits`.

        :func:`ganlib.evaluation.page.save_page` writes the result as a page.
        """
        if self.model_.plan.task.draws:
            self.check_draw(num_items, seed, truncation)
        known = self._as_trained(train, None, strict=False) if train is not None else getattr(self, "data_", None)
        return assess_model(
            self.model_,
            self._as_trained(data, None, strict=False),
            train=known,
            num_items=num_items,
            extractor=extractor,
            seed=seed,
            truncation=truncation,
            limits=limits,
        )

    def save(self, path: Path | str, *, discriminator: bool = True) -> None:
        """Write the model as one file: safetensors and JSON in a zip with digests; :func:`ganlib.model.save`."""
        model.save(self.model_, path, discriminator=discriminator)

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto") -> "GAN":
        """A model from a file of :meth:`save` or a run folder."""
        loaded = model.load(path, choose_device(device))
        for notice in loaded.notices:
            say(notice, "auto")
        gan = cls(loaded.recipe, seed=loaded.facts["seed"], device=device)
        gan.model_ = loaded
        return gan

    def diagnose(self) -> Diagnosis:
        """What is wrong with the training, in plain words, and what to change; of a loaded run, what its folder says.

        Raises :class:`ganlib.errors.UsageError` for a model from a ``.gan`` file, which knows nothing of its training.
        """
        if "history_" in self.__dict__:
            return diagnosis.of_training(self.history_, self.events_)
        return diagnosis.of_run(self.model_.folder)

    def __getattr__(self, name: str) -> Any:
        if name == "model_":
            raise NotFittedError("this GAN has no model yet: call fit, or GAN.load")
        raise AttributeError(f"'GAN' object has no attribute {name!r}")

    # What follows is not part of the interface.

    def _train_in(self, folder: Path, request: Request, style: Style) -> "GAN":
        if not folder.exists():
            request = request.with_data()  # unusable data should not leave a folder behind
        with Run.open(folder) as run:
            return self._train(dataclasses.replace(request, run=run), style)

    def _train(self, request: Request, style: Style) -> "GAN":
        prepared, team = prepare(request), request.runtime.team
        state, plan, chunk = prepared.state, prepared.plan, chunk_items(prepared.train.spec.shape)
        for notice in prepared.notices:
            say(notice, style)
        with stop_wishes() as stop:
            session = Session(
                plan,
                state,
                prepared.train,
                prepared.held_out,
                request.runtime,
                prepared.facts["seed"],
                request.pace,
                Sampler(plan.task, state.average, request.runtime.device, prepared.label_share, chunk),
                request.run,
                stop,
                patient=request.pace.items is None and request.pace.seconds is None,
                checkpoint_seconds=request.checkpoint_seconds,
                in_folder=request.in_folder,
                records=team.first(request.run.records() if request.run is not None else []),
                events=team.first(request.run.events() if request.run is not None else []),
            )
            ended = session.patient and exhausted(session.records)
            if ended or request.pace.finished(state.items_seen, state.total_items):
                session.note("finished", "", {})
                say(f"already trained on {state.items_seen:,} items; give a larger budget to go on", style)
            else:
                for _ in shown(fit(session), style, prepared.recipe.name):
                    pass
        self._keep(prepared, session, request.runtime.device)
        if (asked := session.stopped or stop.signal) is not None:
            saved = "; saved, run the same command again to go on" if request.run is not None else ""
            say(f"stopped by {asked.name} after {state.items_seen:,} items{saved}", style)
            if asked is signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(128 + asked)
        return self

    def _keep(self, prepared: Prepared, session: Session, device: str) -> None:
        judge = session.state.discriminator
        if judge is not None:
            judge.eval().requires_grad_(False)
        self.model_ = Model(
            prepared.recipe,
            prepared.setting,
            prepared.plan,
            session.state.average,
            judge,
            device,
            prepared.label_share,
            prepared.facts,
        )
        self.history_, self.events_ = session.records, session.events
        self.data_ = prepared.train

    def _class_numbers(self, labels: object) -> Tensor | None:
        return predicting.class_numbers(self.model_, labels)

    def _as_trained(self, items: object, labels: object, *, strict: bool = True) -> Data:
        """Items of the kind the model was trained on. Raises DataError that names the difference.

        Labels of classes that the model does not know are an error too, or are dropped where not `strict`.
        """
        spec = self.model_.setting.spec
        if self.model_.recipe.material != "items":
            given = read_as(self.model_.recipe.material, items, labels, self._size_for(items))
            known = given.of_classes(spec.classes) if self.model_.recipe.material == "attributes" else given
            return known.of_kind(spec)
        lone = isinstance(items, np.ndarray | Tensor) and len(items) == 1  # load wants two, to learn from
        given = load(np.concatenate([np.asarray(items)] * 2) if lone else items, size=self._size_for(items))
        given = given.subset(np.arange(1)) if lone else given
        usable = strict or {*given.spec.classes} <= {*spec.classes}
        if labels is not None:
            known = self._class_numbers(labels)
        elif given.labels is not None and self.model_.label_share and usable:
            known = self._class_numbers([given.spec.classes[label] for label in given.labels])
        else:
            known = None
        if known is not None and len(known) != len(given):
            raise DataError(f"{len(known)} labels for {len(given)} items; give one for each")
        given = dataclasses.replace(given, labels=None if known is None else known.numpy())
        return given.of_kind(spec)

    def _size_for(self, items: object) -> tuple[int, int] | None:
        return None if isinstance(items, Data) else self.model_.setting.size
