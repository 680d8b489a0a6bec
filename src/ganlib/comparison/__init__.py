"""Comparison: several recipes trained on the same data for the same budget, and judged by the same items.

:func:`compare` trains, each in a process of its own; :mod:`ganlib.comparison.table` and
:mod:`ganlib.comparison.picture` show what came of it from plain data.
"""

from ganlib.comparison.compare import compare
from ganlib.comparison.result import Comparison, Cost, Entry

__all__ = ["Comparison", "Cost", "Entry", "compare"]
