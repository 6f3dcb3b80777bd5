"""Weights under the names and in the layouts that their authors publish, and how they become those of our modules.

The authors' code has other names than ours, stores binary weights as one flattened column, or a shift where we have
a threshold. An architecture is therefore registered with a :data:`Translation`; :func:`layout` makes one of a
table. Nothing here needs PyTorch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
State = Mapping[str, Array]
# Of our module's state dict, in its order.
Shapes = Mapping[str, tuple[int, ...]]
# Published state to ours; None where the names are not those of the layout. What it cannot place it leaves under the
# published name, so that the error can tell.
Translation = Callable[[State, Shapes], "dict[str, Array] | None"]
Change = Callable[[Array, "tuple[int, ...] | None"], Array]


def unchanged(array: Array, shape: tuple[int, ...] | None) -> Array:
    """The array as it is."""
    return array


def reshaped(array: Array, shape: tuple[int, ...] | None) -> Array:
    """A vector, whatever its axes of length 1, in our shape; anything else as it is.

    Only a vector says in which order its elements are: a convolution's weights as (N, 1) are those of (O, I, kh, kw)
    row by row, while (kh, kw, I, O) of equal size must not pass.
    """
    vector = sum(length != 1 for length in array.shape) <= 1
    return array.reshape(shape) if shape is not None and vector and array.size == math.prod(shape) else array


def negated(array: Array, shape: tuple[int, ...] | None) -> Array:
    """:func:`reshaped`, with the other sign: ``x + shift >= 0`` is ``x - threshold >= 0``."""
    return -reshaped(array, shape)


@dataclass(frozen=True)
class Rule:
    """One kind of published parameter.

    Attributes:
        theirs: a regular expression for the whole published name, without a leading ``module.``.
        ours: our name, with ``\\1`` and so on for the groups; None for what the published network holds and never
            uses.
        change: from their array and our shape (None: we have no such name) to our array.
    """

    theirs: str
    ours: str | None
    change: Change = unchanged


def layout(*rules: Rule) -> Translation:
    """The translation of a table; the first rule that matches a name counts.

    It does not apply (None) where a name matches no rule or two names mean one of ours.
    """
    table = [(re.compile(rule.theirs), rule) for rule in rules]

    def translate(state: State, shapes: Shapes) -> dict[str, Array] | None:
        result: dict[str, Array] = {}
        for theirs, array in state.items():
            found = next(((m, rule) for pattern, rule in table if (m := pattern.fullmatch(theirs))), None)
            if found is None:
                return None
            match, rule = found
            if rule.ours is None:
                continue
            ours = match.expand(rule.ours)
            if ours in result:
                return None
            result[ours] = rule.change(array, shapes.get(ours))
        return result

    return translate
