"""The evaluation against planted truth: what is wrong is found by the right question, and by no other."""

import dataclasses
import html.parser
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ganlib.data import Data, load
from ganlib.errors import DataError
from ganlib.evaluation import Evaluation, Limits, evaluate
from ganlib.evaluation.material import default_extractor
from ganlib.evaluation.page import _img, page, save_page
from ganlib.evaluation.result import QUESTIONS
from ganlib.gan import GAN
from ganlib.metrics.encoder import LearnedPatches
from ganlib.metrics.features import Pixels, area_mean
from ganlib.metrics.intervals import wilson

COUNT = 1000


def points(count: int, seed: int, modes: int = 10) -> np.ndarray:
    """Vectors of the first `modes` of ten clusters in sixteen dimensions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 4, (10, 16))
    return centres[rng.integers(0, modes, count)] + rng.normal(0, 1, (count, 16))


TRAIN, HELD_OUT = points(5 * COUNT, 1), points(2 * COUNT, 2)


def found(fake: np.ndarray, train: np.ndarray | None = TRAIN, seed: int = 0) -> Evaluation:
    return evaluate(load(fake), load(HELD_OUT), train=None if train is None else load(train), seed=seed)


def flagged(evaluation: Evaluation) -> dict[str, str]:
    return {name: answer.verdict for name, answer in evaluation.answers().items() if answer.verdict in ("WARN", "FAIL")}


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_fresh_real_items_pass_every_question(seed: int) -> None:
    evaluation = found(points(COUNT, seed), seed=seed)
    assert {name: answer.verdict for name, answer in evaluation.answers().items()} == dict.fromkeys(QUESTIONS, "PASS")
    for name in ("precision", "recall", "density", "coverage"):
        score = evaluation.scores()[name]
        assert score.low is not None and score.high is not None and score.real_baseline is not None
        assert score.low <= score.real_baseline + 0.05 and score.high >= score.real_baseline - 0.05, name


@pytest.mark.parametrize("percent", [1, 2, 5, 10, 50])
def test_planted_copies_are_counted_and_flagged(percent: int) -> None:
    copied = COUNT * percent // 100
    evaluation = found(np.concatenate([TRAIN[:copied], points(COUNT - copied, 3)]))
    rate = evaluation.copied.scores["copy_rate"]
    assert rate.value == pytest.approx(percent / 100, abs=0.01)
    assert rate.low is not None and rate.high is not None and rate.low <= percent / 100 <= rate.high
    assert evaluation.copied.verdict == ("FAIL" if percent >= 2 else "WARN")
    assert not {"good", "covered", "recognisable"} & flagged(evaluation).keys()


def test_missing_modes_are_flagged_as_not_covered_only() -> None:
    evaluation = found(points(COUNT, 3, modes=5))
    assert flagged(evaluation) == {"covered": "FAIL"}
    missed = evaluation.covered.scores["missed"]
    assert missed.value == pytest.approx(0.5, abs=0.06) and missed.real_baseline == 0.0
    assert "50%" in evaluation.covered.reason or "4" in evaluation.covered.reason


def test_a_missing_tenth_is_flagged_as_not_covered() -> None:
    evaluation = found(points(COUNT, 3, modes=9))
    assert set(flagged(evaluation)) == {"covered"}


def test_fifty_points_are_flagged_as_not_covered_only() -> None:
    few = points(50, 3)[np.random.default_rng(0).integers(0, 50, COUNT)]
    evaluation = found(few)
    assert flagged(evaluation) == {"covered": "FAIL"}
    assert evaluation.covered.scores["duplicates"].value == pytest.approx(1.0)
    assert evaluation.covered.scores["support"].value == pytest.approx(50, rel=0.2)


def test_noise_is_flagged_as_not_good_only() -> None:
    evaluation = found(np.random.default_rng(0).normal(0, 12, (COUNT, 16)))
    assert flagged(evaluation) == {"good": "FAIL"}
    assert evaluation.covered.verdict == "NOT MEASURED" and "quality" in evaluation.covered.reason
    assert evaluation.recognisable.scores["detector_auc"].value == pytest.approx(1.0, abs=0.02)


def test_a_generator_that_leaks_its_training_items_is_not_private() -> None:
    near = TRAIN[:COUNT] + np.random.default_rng(0).normal(0, 0.2, (COUNT, 16))
    evaluation = evaluate(load(near), load(HELD_OUT), train=load(TRAIN[:COUNT]))
    assert evaluation.private.verdict == "FAIL"
    assert (evaluation.private.scores["members_found"].low or 0.0) > 0.05
    assert evaluation.copied.verdict == "FAIL"


def test_without_training_data_nothing_is_said_of_copies() -> None:
    evaluation = found(points(COUNT, 3), train=None)
    assert evaluation.copied.verdict == evaluation.private.verdict == "NOT MEASURED"
    assert "train" in evaluation.copied.reason
    assert evaluation.good.verdict == evaluation.covered.verdict == "PASS"


@pytest.mark.parametrize("count", [2, 40, 90])
def test_too_few_items_are_not_measured_and_the_count_is_named(count: int) -> None:
    evaluation = evaluate(load(points(count, 3)), load(points(count + 2, 4)), train=load(points(count, 5)))
    assert {answer.verdict for answer in evaluation.answers().values()} == {"NOT MEASURED"}
    notes = [score.note for score in evaluation.scores().values() if score.value is None]
    assert notes and all("needs at least" in note for note in notes)


def test_the_same_seed_gives_the_same_evaluation() -> None:
    fake = points(COUNT, 3)
    assert found(fake).to_json() == found(fake).to_json()


def test_limits_can_be_changed() -> None:
    strict = Limits(quality_warn=1.5, quality_fail=1.2)
    evaluation = evaluate(load(points(COUNT, 3)), load(HELD_OUT), limits=strict)
    assert evaluation.good.verdict == "FAIL"


def test_json_holds_every_question_with_its_figures_and_the_protocol() -> None:
    told = json.loads(found(points(COUNT, 3)).to_json())
    assert list(told) == [*QUESTIONS, "protocol"]
    for name in QUESTIONS:
        assert told[name]["verdict"] in ("PASS", "WARN", "FAIL", "NOT MEASURED")
        for score in told[name]["scores"].values():
            assert set(score) == {"value", "low", "high", "real_baseline", "note"}
    protocol = told["protocol"]
    assert (protocol["n_fake"], protocol["n_reference"], protocol["n_train"]) == (COUNT, COUNT, 5 * COUNT)
    assert {"extractor", "extractor_digest", "seed", "truncation", "quantisation", "ganlib", "k"} <= protocol.keys()


@pytest.fixture(scope="module")
def digits() -> tuple[Data, Data, Data]:
    """Training, held-out and fresh digits."""
    every = load("digits")
    order = np.random.default_rng(0).permutation(len(every))
    train, held_out, fresh = (every.subset(part) for part in np.split(order, [600, 1300]))
    return train, held_out, fresh


def test_parts_do_not_overlap(digits: tuple[Data, Data, Data]) -> None:
    from ganlib.evaluation.material import deal

    train, held_out, fresh = digits
    material = deal(fresh, held_out, None, None, 0, 10_000)
    assert material.about["learned_from"] == f"{700 // 3} held-out items"
    both = np.concatenate([material.reference.numbers, material.fresh.numbers])
    assert len(np.unique(both)) == len(both) == 2 * ((700 - 700 // 3) // 2)
    known = deal(fresh, held_out, train, None, 0, 10_000)
    assert known.members is not None and known.train is not None
    assert len(known.members) == 600 - 300 and len(known.train) == 600
    assert np.array_equal(known.members.numbers, known.train.numbers[:300]), "the encoder has seen the others"


def test_an_extractor_of_the_users_own_is_used_and_named(digits: tuple[Data, Data, Data]) -> None:
    train, held_out, fresh = digits
    evaluation = evaluate(fresh, held_out, train=train, extractor=Pixels(None))
    assert evaluation.protocol["extractor"] == "pixels"
    assert evaluation.protocol["extractor_digest"] == Pixels(None).digest()


def test_other_sizes_are_refused_by_name(digits: tuple[Data, Data, Data]) -> None:
    small = load(np.zeros((200, 6, 8), np.uint8))
    with pytest.raises(DataError, match=r"images of 6x8x1.*images of 8x8x1|images of 8x8x1.*images of 6x8x1"):
        evaluate(small, digits[1])
    with pytest.raises(DataError, match="nothing can be compared"):
        evaluate(digits[2], digits[1].subset(np.arange(3)))


class _Reader(html.parser.HTMLParser):
    """What a page holds: tags, addresses and words."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_stands_alone_and_escapes_what_is_the_users(digits: tuple[Data, Data, Data]) -> None:
    train, held_out, fresh = digits
    evil = "<script>alert(1)</script>\"'><img src=http://x/y>"
    held_out = dataclasses.replace(held_out, source=evil)
    evaluation = evaluate(fresh, held_out, train=train)
    records = [
        {"items": 64 * n, "generator/adversarial": 1 / n, "score": math.nan if n == 3 else n} for n in range(1, 9)
    ]
    text = page(evaluation, title=evil, records=records)
    reader = _Reader()
    reader.feed(text)
    assert not {"script", "link", "iframe", "object", "form"} & set(reader.tags)
    assert reader.addresses and all(address.startswith(("data:image/png", "#")) for address in reader.addresses)
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text
    assert reader.words.count(evil) >= 2, "shown as it is, as text"
    for question in QUESTIONS.values():
        assert question in reader.words
    assert reader.tags.count("svg") == 3, "precision and recall, the losses, the score"
    assert reader.tags.count("img") >= 2 + len(evaluation.exhibits.neighbour_distances)


def test_the_page_shows_the_nearest_training_items(digits: tuple[Data, Data, Data]) -> None:
    train, held_out, fresh = digits
    copies = np.concatenate([train.take(np.arange(20)), fresh.take(np.arange(200))])
    shown = evaluate(load(copies[:, 0]), held_out, train=train).exhibits
    pairs = shown.neighbours.reshape(-1, 2, *shown.neighbours.shape[1:])
    assert len(pairs) == len(shown.neighbour_distances) == 16
    assert np.array_equal(pairs[:, 0], pairs[:, 1]) and not shown.neighbour_distances.any()


def test_saving_writes_the_page_and_its_figures(tmp_path: Path) -> None:
    evaluation = found(points(COUNT, 3))
    save_page(evaluation, tmp_path / "a" / "report.html", title="vectors")
    assert json.loads((tmp_path / "a" / "report.json").read_text()) == json.loads(evaluation.to_json())
    text = (tmp_path / "a" / "report.html").read_text()
    assert "<img" not in text and "PASS" in text


def test_labels_on_both_sides_are_compared(digits: tuple[Data, Data, Data]) -> None:
    train, held_out, fresh = digits
    scores = evaluate(fresh, held_out, train=train).scores()
    agreement, taught = scores["class_agreement"], scores["classification_accuracy"]
    assert agreement.value is not None and agreement.value > 0.85
    assert taught.value is not None and taught.value == pytest.approx(taught.real_baseline, abs=0.07)
    assert fresh.labels is not None
    swapped = dataclasses.replace(fresh, labels=(fresh.labels + 1) % 10)
    wrong = evaluate(swapped, held_out, train=train).scores()
    assert (wrong["class_agreement"].value or 0.0) < 0.1 and (wrong["classification_accuracy"].value or 0.0) < 0.1
    unlabelled = evaluate(dataclasses.replace(fresh, labels=None), held_out, train=train).scores()
    assert "class_agreement" not in unlabelled


def test_training_items_among_the_held_out_ones_leave_copies_unmeasured() -> None:
    fake, train = points(COUNT, 3), TRAIN[:COUNT]
    fake[:100] = train[:100]
    same = evaluate(load(fake), load(train), train=load(train))
    assert same.copied.verdict == same.private.verdict == "NOT MEASURED"
    assert "100%" in same.copied.reason and "not trained on" in same.private.reason
    a_few = evaluate(load(fake), load(np.concatenate([HELD_OUT[50:], train[-50:]])), train=load(train))
    assert a_few.copied.verdict == "FAIL", "2.5 % are no harm"


def test_twins_among_real_items_are_no_fault_of_the_samples() -> None:
    one, two, three = (np.random.default_rng(seed).normal(size=(600, 1)) for seed in range(3))
    evaluation = evaluate(load(one), load(np.concatenate([two, three])))
    by_chance = evaluation.covered.scores["duplicates"].real_baseline
    assert by_chance is not None and by_chance > 0.05, "near each other in one dimension"
    assert evaluation.covered.verdict == "PASS"
    again = evaluate(load(one[np.arange(600) % 200]), load(np.concatenate([two, three])))
    assert again.covered.verdict == "FAIL"


def test_coarse_data_are_measured_but_for_twins() -> None:
    coarse = [np.random.default_rng(seed).integers(0, 3, (600, 3)).astype(float) for seed in range(3)]
    evaluation = evaluate(load(coarse[0]), load(coarse[1]), train=load(coarse[2]))
    assert evaluation.covered.scores["duplicates"].value is None
    assert evaluation.good.verdict == evaluation.covered.verdict == "PASS"
    assert (
        evaluation.copied.verdict == "NOT MEASURED" and "held-out items are training items" in evaluation.copied.reason
    )


def test_samples_that_are_astray_give_json_all_the_same() -> None:
    evaluation = found(np.random.default_rng(0).normal(size=(COUNT, 16)) * 1e30)
    told = json.loads(evaluation.to_json())
    assert told["good"]["verdict"] == "FAIL"
    assert any(math.isnan(score.value or 0.0) for score in evaluation.scores().values())
    assert told["good"]["scores"]["frechet_infinity"]["value"] is None


def test_the_interval_of_missed_regions_counts_the_items_that_were_counted() -> None:
    missed = found(points(COUNT, 3, modes=5)).covered.scores["missed"]
    assert missed.value is not None
    bounds = wilson(round(missed.value * COUNT / 2), COUNT // 2)  # half of the reference made the regions
    assert (missed.low, missed.high) == (bounds.low, bounds.high)


def test_an_encoder_of_large_pictures_sees_them_small() -> None:
    large = np.random.default_rng(0).integers(0, 256, (100, 96, 128, 3), dtype=np.uint8)
    extractor, learned = default_extractor(load(large), np.arange(100), 0)
    assert learned == 100 and isinstance(extractor, LearnedPatches) and extractor.shape == (3, 64, 64)
    items = load(large).batch(np.arange(5))["real"]
    assert torch.allclose(extractor(items), extractor(area_mean(items, 64)), atol=1e-5)


def test_photographs_are_shown_small() -> None:
    photographs = np.random.default_rng(0).integers(0, 256, (48, 900, 1200, 3), dtype=np.uint8)
    assert len(_img(photographs, 8, "")) < 12e6, "in full they take 200 MB"


@pytest.mark.parametrize("given", ["none", "strange", "known"])
def test_a_judge_that_wants_labels_is_asked_only_where_there_are_some(given: str) -> None:
    rows, labels = TRAIN[:1200], (TRAIN[:1200, 0] > 0).astype(np.int64)
    gan = GAN().fit(rows, labels, items=600, validation=0.0, progress="none")
    held_out = load(HELD_OUT[:1200], None if given == "none" else labels)
    if given == "strange":
        held_out = dataclasses.replace(held_out, spec=dataclasses.replace(held_out.spec, classes=("cat", "dog")))
    private = gan.evaluate(held_out, num_items=600).private
    assert private.verdict in ("PASS", "WARN", "FAIL")
    assert ("logan_auc" in private.scores) == (given == "known")
