"""Evaluation: five questions about a generator, each answered beside what fresh real data would score.

:func:`evaluate` compares generated items with held-out real ones, and with the training items where they are known;
:mod:`ganlib.evaluation.page` writes what it found as one HTML page.
"""

from ganlib.evaluation.evaluate import evaluate
from ganlib.evaluation.result import Answer, Evaluation
from ganlib.evaluation.verdicts import Limits

__all__ = ["Answer", "Evaluation", "Limits", "evaluate"]
