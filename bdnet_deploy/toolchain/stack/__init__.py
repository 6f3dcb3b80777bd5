"""Worst-case stack of a linked Cortex-M image, and whether it recurses: :func:`analyse_stack`.

``program`` reads the ELF and decodes, ``values`` and ``effects`` know what one instruction does, ``frames`` follows one function, ``bound``
puts the functions together.
"""

from __future__ import annotations

from .bound import ENTRIES, PathStep, StackBound, StackError, StackReport, analyse_stack

__all__ = ["ENTRIES", "PathStep", "StackBound", "StackError", "StackReport", "analyse_stack"]
