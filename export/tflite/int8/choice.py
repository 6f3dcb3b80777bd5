"""Which operators become int8, and the scale and zero point of each tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bdnet_deploy.export.tflite import extended
from bdnet_deploy.export.tflite.int8.ranges import ENDLESS, Range
from bdnet_deploy.export.tflite.int8.reading import Reading
from bdnet_deploy.export.tflite.schema import ABSENT, Model, Operator, TensorKind
from bdnet_deploy.tflite_reference.larq import padded_with_zeros

LOW, HIGH = -128, 127

#: Operators that move or select elements: inputs and output have one scale.
SAME_LEVELS = frozenset(
    {
        "AVERAGE_POOL_2D", "CONCATENATION", "DEPTH_TO_SPACE", "GATHER", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "PAD", "PADV2",
        "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SLICE", "SPACE_TO_DEPTH", "STRIDED_SLICE", "TILE", "TRANSPOSE",
    }
)  # fmt: skip
#: Operators with scales of their own.
OWN_LEVELS = frozenset(
    {"ADD", "SUB", "MUL", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "LOGISTIC", "TANH", "MEAN"}
)
#: Outputs for which TensorFlow Lite demands these levels.
_DEMANDED = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
#: Where only signs are read, levels are so much finer than the range would have them; the rest is cut off.
_FINER = 8


@dataclass(frozen=True)
class Levels:
    """value = scale * (level - zero); ``scale`` is a float32."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Levels:
        """Levels that reach from ``low`` to ``high`` and have 0 among them."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / (HIGH - LOW)))
        if not scale > np.finfo(np.float32).tiny:
            return cls(1.0, 0)
        return cls(scale, int(np.clip(np.rint(LOW - low / scale), LOW, HIGH)))


@dataclass
class Choice:
    """``int8`` has the operators by identity; ``levels`` the tensors that int8 operators compute, or may read."""

    int8: set[int] = field(default_factory=set)
    levels: dict[int, Levels] = field(default_factory=dict)

    def __contains__(self, op: Operator) -> bool:
        return id(op) in self.int8


def choose(model: Model, seen: dict[int, Range]) -> Choice:
    """Decide from the front to the back.

    Products are int8 wherever they stand, binary convolutions where their kernels can give int8, operators on elements
    behind int8 ones. A tensor whose sign alone is read stays float32 behind binary convolutions: it is exact there.
    """
    reading, choice = Reading(model), Choice()
    int8: set[int] = set()  # tensors whose int8 form exists
    fixed: dict[int, Levels] = {}
    for op in model.operators:
        if not op.outputs or not reading.is_float(op.outputs[0]):
            continue
        output = op.outputs[0]
        if op.name == "DEQUANTIZE" and model.tensors[op.inputs[0]].kind is TensorKind.INT8:
            fixed[output] = _levels_of(model, op.inputs[0])
        elif op.name == "LceDequantize":
            if not any(_wanted(reading, r) for r in reading.readers.get(output, [])):
                continue
            fixed[output] = Levels(1.0, 0)
        elif not _suits(reading, op, int8):
            continue
        choice.int8.add(id(op))
        int8.add(output)
        if op.name in _DEMANDED:
            fixed[output] = Levels(float(np.float32(_DEMANDED[op.name][0])), _DEMANDED[op.name][1])
    choice.levels = _all_levels(reading, choice, seen, fixed)
    return choice


def _wanted(reading: Reading, op: Operator) -> bool:
    return reading.is_product(op) or op.name in OWN_LEVELS or op.name in SAME_LEVELS


def _suits(reading: Reading, op: Operator, int8: set[int]) -> bool:
    output = op.outputs[0]
    if op.name == extended.NAME:
        return not reading.decides_signs_only(output)
    if op.name == "LceBconv2d":
        return not padded_with_zeros(op) and not reading.decides_signs_only(output)
    if reading.is_product(op):
        return True
    if op.name not in SAME_LEVELS and op.name not in OWN_LEVELS:
        return False
    inputs = [i for i in op.inputs if i != ABSENT and reading.data(i) is None and reading.is_float(i)]
    known = [i in int8 for i in inputs]
    if not any(known):
        return False
    if op.name == "MEAN":
        return _is_pool(reading, op)
    shapes = {reading.model.tensors[i].shape for i in inputs}
    return all(known) or (op.name == "ADD" and len(shapes) == 1)


def _is_pool(reading: Reading, op: Operator) -> bool:
    """A mean over height and width that is no part of a normalization."""
    axes, x = reading.data(op.inputs[1]), reading.model.tensors[op.inputs[0]]
    if axes is None or len(x.shape) != 4 or sorted(int(a) for a in np.atleast_1d(axes)) != [1, 2]:
        return False
    return all(r.name != "SUB" for r in reading.readers.get(op.outputs[0], []))


def _levels_of(model: Model, index: int) -> Levels:
    tensor = model.tensors[index]
    assert tensor.scale is not None
    zero = 0 if tensor.zero_point is None else int(tensor.zero_point[0])
    return Levels(float(np.atleast_1d(tensor.scale)[0]), zero)


def _all_levels(
    reading: Reading, choice: Choice, seen: dict[int, Range], fixed: dict[int, Levels]
) -> dict[int, Levels]:
    """Levels of every float tensor; those that move between tensors unchanged are shared."""
    leader: dict[int, int] = {}

    def find(i: int) -> int:
        while leader.get(i, i) != i:
            i = leader[i]
        return i

    ranges = dict(seen)
    for op in reading.model.operators:
        if op not in choice or op.name not in SAME_LEVELS:
            continue
        group = [i for i in (*op.inputs, *op.outputs) if i in ranges and i not in fixed]
        constants = [d for i in op.inputs if reading.is_float(i) and (d := reading.data(i)) is not None and d.size]
        constants = [d for d in constants if np.abs(d).max() < ENDLESS]
        merged = [ranges[find(i)] for i in group] + [(float(d.min()), float(d.max())) for d in constants]
        for i in group:
            leader[find(i)] = find(op.outputs[0])
        if merged:
            ranges[find(op.outputs[0])] = (min(m[0] for m in merged), max(m[1] for m in merged))
    levels = dict(fixed)
    for i in seen:
        if i in fixed:
            continue
        low, high = ranges[find(i)]
        if find(i) == i and i not in leader and reading.decides_signs_only(i):
            largest = max(abs(low), abs(high), 1e-30)
            low, high = -largest / _FINER, largest / _FINER
        levels[i] = Levels.of(low, high)
    return levels
