"""One evaluation from beginning to end."""

from dataclasses import replace

from ganlib import __version__
from ganlib.data import Data
from ganlib.evaluation.classes import by_class
from ganlib.evaluation.copying import copied, copies
from ganlib.evaluation.coverage import covered, regions
from ganlib.evaluation.exhibits import exhibits
from ganlib.evaluation.material import MAX_FAKES, deal
from ganlib.evaluation.privacy import Judge, private
from ganlib.evaluation.quality import K, good, neighbourhoods
from ganlib.evaluation.recognition import recognisable
from ganlib.evaluation.result import Evaluation
from ganlib.evaluation.verdicts import Limits
from ganlib.metrics.features import FeatureExtractor


def evaluate(
    fake: Data,
    held_out: Data,
    *,
    train: Data | None = None,
    extractor: FeatureExtractor | None = None,
    judge: Judge | None = None,
    num_items: int = MAX_FAKES,
    truncation: float | None = None,
    seed: int = 0,
    limits: Limits | None = None,
) -> Evaluation:
    """Compare generated items with real ones that the generator never saw.

    Args:
        fake: generated items; up to 10,000 are used.
        held_out: real items that the generator was not trained on; without some hundreds little is measured.
        train: the items that it was trained on; without them copies and members are NOT MEASURED.
        extractor: None learns an encoder from training items (or a third of the held-out ones), in seconds.
        judge: the discriminator's logits, for the attack that has it.
        num_items: at most so many samples.
        truncation: what the samples were drawn with, for the protocol.
        seed: of all that is drawn at random.
        limits: what is tolerated.

    Raises :class:`ganlib.errors.DataError` where the sets hold other kinds or shapes of items.
    """
    limits = limits or Limits()
    material = deal(fake, held_out, train, extractor, seed, num_items)
    near, found, copying = neighbourhoods(material), regions(material), copies(material)
    quality = good(material, near, limits)
    quality = replace(quality, scores={**quality.scores, **by_class(material)})
    close = None if copying is None or copying.rate.value == 0 else copying.close
    protocol = {**material.about, "k": K, "truncation": truncation, "ganlib": __version__}
    return Evaluation(
        quality,
        covered(material, near, found, close, quality.scores, limits),
        copied(material, copying, found, limits),
        private(material, copying, judge, limits),
        recognisable(material, found, limits),
        protocol,
        exhibits(material, near, found, copying),
    )
