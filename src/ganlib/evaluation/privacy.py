"""Could an outsider tell who was in the data?"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from ganlib.evaluation.copying import Copies
from ganlib.evaluation.material import Material, Part
from ganlib.evaluation.result import Answer
from ganlib.evaluation.verdicts import Limits, share_verdict, told_apart, too_few
from ganlib.metrics.intervals import detection_rate
from ganlib.metrics.membership import domias, gan_leaks, gan_leaks_calibrated
from ganlib.metrics.report import Score

MIN_ATTACKED = 500
"""With fewer items, one in a hundred is too few to bound."""

Judge = Callable[[Part], Float[Tensor, " n"]]
"""The discriminator's logits of the items of a part."""


def private(material: Material, copying: Copies | None, judge: Judge | None, limits: Limits) -> Answer:
    """By the best of the attacks that need the samples alone. The discriminator's own is reported beside them."""
    if material.members is None:
        return Answer("NOT MEASURED", "The training data are not known: pass them as train.")
    count = min(len(material.members), len(material.reference))
    if count < MIN_ATTACKED:
        needed = too_few(MIN_ATTACKED, count, "training items, and twice as many held-out ones")
        return Answer("NOT MEASURED", f"Too few items: it {needed.note}.", {"members_found": needed})
    if copying is not None and (why := copying.muddled()):
        return Answer("NOT MEASURED", why, {"members_found": Score(None, note=why)})
    inside, outside = material.members.first(count), material.reference.first(count)
    fake, population = material.fake.features, material.fresh.features
    attacks: dict[str, tuple[Tensor, Tensor]] = {
        "gan_leaks": (gan_leaks(inside.features, fake), gan_leaks(outside.features, fake)),
        "gan_leaks_calibrated": (
            gan_leaks_calibrated(inside.features, fake, population),
            gan_leaks_calibrated(outside.features, fake, population),
        ),
        "domias": (domias(inside.features, fake, population), domias(outside.features, fake, population)),
    }
    scores: dict[str, Score] = {}
    for name, (members, others) in attacks.items():
        scores |= told_apart(name, members, others)
    # Several attacks are tried, so each gets its part of what chance may do.
    rates = {name: detection_rate(*pair, confidence=1 - 0.05 / len(attacks)) for name, pair in attacks.items()}
    best = max(rates, key=lambda name: (rates[name].low, rates[name].value))
    lead = Score(rates[best].value, rates[best].low, rates[best].high, 0.01, f"the best attack, {best}")
    verdict = share_verdict(lead, limits.found_warn, limits.found_fail)
    reason = f"The best attack finds {lead.value:.1%} of the training items while accusing 1 % of the others"
    reason += "; guessing finds 1 %." if verdict == "PASS" else ": the samples give them away."
    if judge is not None:
        scores |= told_apart("logan", judge(inside), judge(outside), "if the discriminator is published")
    return Answer(verdict, reason, {"members_found": lead, **scores})
