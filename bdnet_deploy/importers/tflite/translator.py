"""From the operators of a file to those of a graph: the tensors known so far, and what every rule of translation needs.

The rules lie in ``lce``, ``products``, ``arithmetic``, ``pooling`` and ``moving``; each is entered by :func:`rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from bdnet_deploy.bitplanes import words
from bdnet_deploy.errors import BdnetError, ModelFileError, UnsupportedError
from bdnet_deploy.export.tflite.schema import Model, Tensor, TensorKind
from bdnet_deploy.graph import (
    Affine,
    Array,
    Clamp,
    Conv2d,
    Dequantize,
    DType,
    Graph,
    GraphError,
    Op,
    Pad,
    Quantize,
    Repeat,
    Reshape,
    TwoSlope,
    Unary,
    Value,
)
from bdnet_deploy.importers.index_maps import operators
from bdnet_deploy.importers.tflite.entries import NO_PADDING, Entry, constant, graph_shape
from bdnet_deploy.importers.tflite.source import (
    MAX_ELEMENTS,
    Operation,
    clean_name,
    real_constant,
    scale_of,
)

Rule = Callable[["Translator", Operation], None]
_R = TypeVar("_R", bound=Rule)
RULES: dict[str, Rule] = {}

#: Element orders that are not their own are kept as indices; they may be so many.
MAX_INDEX = 1 << 24
_DTYPES = {TensorKind.INT8: DType.I8, TensorKind.UINT8: DType.U8, TensorKind.INT16: DType.I16}


def rule(*kinds: str) -> Callable[[_R], _R]:
    """Decorator: the function translates operators of these kinds."""

    def enter(function: _R) -> _R:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return enter


class Translator:
    """One file on its way to a graph of numerics "real".

    Args:
        model: the file's content.
        graph: an empty graph.
        rounding: keep the rounding of the file's integers as ``quantize`` and ``dequantize``, not only their limits.
    """

    def __init__(self, model: Model, graph: Graph, *, rounding: bool = False) -> None:
        self.model, self.graph, self.rounding = model, graph, rounding
        self.entries: dict[int, Entry] = {}
        #: Maps of integers that now are real numbers.
        self.integers = 0

    def run(self) -> None:
        for i in self.model.inputs:
            self._input(i)
        for index in range(len(self.model.operators)):
            op = Operation(self.model, index)
            try:
                _find(op)(self, op)
            except GraphError as error:
                raise op.refuse(str(error)) from error
            except BdnetError as error:
                error.where = error.where or op.where
                raise
            except (KeyError, TypeError, ValueError, IndexError, OverflowError, ArithmeticError) as error:
                raise op.damaged(f"{type(error).__name__}: {error}") from error
        self._outputs()

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _input(self, index: int) -> None:
        tensor = self.model.tensors[index]
        where = f"input '{clean_name(tensor.name)}'"
        shape = declared_shape(tensor, where)
        if any(size < 0 for size in tensor.signature[1:]):
            raise UnsupportedError(
                f"its shape is dynamic: {'x'.join(map(str, tensor.signature))}",
                where=where,
                fix="convert the model for one input size",
            )
        if len(shape) > 1 and shape[0] != 1:
            raise UnsupportedError(f"its batch is {shape[0]}", where=where, fix="convert the model with a batch of 1")
        flat = graph_shape(shape)
        if flat is None or index in self.entries:
            raise UnsupportedError(f"an input of shape {shape}", where=where)
        if scale_of(None, tensor) is not None:
            self.integers += 1
        name = clean_name(tensor.name) or f"input_{len(self.graph.inputs)}"
        self.entries[index] = Entry(shape, self.graph.input(name, flat, DType.F64))

    def _outputs(self) -> None:
        for index in self.model.outputs:
            tensor = self.model.tensors[index]
            where = f"output '{clean_name(tensor.name)}'"
            entry = self.entries.get(index)
            if entry is None or entry.value is None:
                raise UnsupportedError("it does not depend on the input", where=where)
            if entry.packed:
                raise UnsupportedError("it is packed bits", where=where, fix="end the model with LceDequantize")
            value = self._real(entry, where)
            flat = graph_shape(entry.shape)
            if flat != value.type.shape and flat is not None:
                value = self.graph.add(Reshape(flat), [value], f"{value.name}.shape")
            if value in self.graph.outputs or value in self.graph.inputs:  # one place for each result
                value = self.graph.add(Repeat(1), [value], f"{value.name}.copy")
            self.graph.outputs.append(value)
        if not self.graph.outputs or not self.graph.inputs:
            raise ModelFileError("the TensorFlow Lite file is damaged", why="the model has no input or no output")

    # -- operands -----------------------------------------------------------------------------------------------------

    def entry(self, op: Operation, i: int) -> Entry:
        """Input ``i``: a map, or a constant as real numbers.

        Raises:
            ModelFileError: nothing makes it.
        """
        tensor = op.tensor(i)
        index = op.operator.inputs[i]
        if index not in self.entries:
            if tensor.data is None:
                raise op.damaged(f"nothing makes its input '{clean_name(tensor.name)}'")
            declared_shape(tensor, op.where)
            return constant(real_constant(op, tensor))
        return self.entries[index]

    def map(self, op: Operation, i: int, *, packed: bool = False) -> Entry:
        """Input ``i``, which must be computed; ``packed`` or not."""
        entry = self.entry(op, i)
        if entry.data is not None:
            raise op.refuse(f"its input {i} is a constant", fix="convert the model with constants folded")
        if entry.packed != packed:
            raise op.refuse("its input is packed bits" if entry.packed else "its input is no packed bits")
        return entry

    def constants(self, op: Operation, i: int) -> Array:
        """Input ``i``, a constant, as real numbers."""
        entry = self.entry(op, i)
        if entry.data is None:
            raise op.refuse(f"its operand {i} is computed, not a constant")
        return entry.data

    def image(self, op: Operation, i: int, *, packed: bool = False) -> Entry:
        """Input ``i`` as a map (1, H, W, C).

        Raises:
            UnsupportedError: its batch is not 1, or it has other axes.
        """
        entry = self.map(op, i, packed=packed)
        if len(entry.shape) != 4 or entry.shape[0] != 1:
            raise op.refuse(f"its input has the shape {entry.shape}, and (1, height, width, channels) is expected")
        return entry

    # -- values -------------------------------------------------------------------------------------------------------

    def ordered(self, op: Operation | None, entry: Entry) -> Value:
        """The entry's elements as a value of the graph's shape for it, bits still as bits (without their factor)."""
        assert entry.value is not None
        shape = graph_shape(entry.bare().shape)
        where = op.where if op else ""
        if shape is None:
            raise UnsupportedError(f"a tensor of shape {entry.shape} cannot be a map", where=where)
        value = entry.value
        if entry.index is None:
            if value.type.shape != shape:
                value = self.graph.add(Reshape(shape), [value], f"{value.name}.reshape", source=op.name if op else "")
        else:
            found = operators(entry.index.reshape(shape), value.type.shape)
            if found is None:
                raise UnsupportedError(
                    "the elements of its input are in an order that no operator here makes", where=where
                )
            for step in found:
                value = self.graph.add(step, [value], f"{value.name}.{step.name}", source=op.name if op else "")
        if entry.padding != NO_PADDING:
            fill = entry.fill / entry.factor
            if value.type.dtype.is_packed and fill not in _fills(value.type.dtype):
                value, fill = self.numbers(value), fill
            pad = Pad((*entry.padding, 0, 0), value=fill)
            value = self.graph.add(pad, [value], f"{value.name}.pad", source=op.name if op else "")
        return value

    def real(self, op: Operation, entry: Entry) -> Value:
        """The entry's real numbers as a float value."""
        return self._real(entry, op.where, op)

    def _real(self, entry: Entry, where: str, op: Operation | None = None) -> Value:
        if graph_shape(entry.shape) is None:
            raise UnsupportedError(f"a tensor of shape {entry.shape} cannot be a map", where=where)
        value = self.ordered(op, entry)
        if value.type.dtype.is_packed:
            value = self.numbers(value)
        if entry.factor != 1.0 or not value.type.dtype.is_float:
            value = self.affine([value], [entry.factor], 0.0, f"{value.name}.real", op.name if op else "")
        return value

    def numbers(self, bits: Value) -> Value:
        """Bits or trits as the integers that they are: one weight of +1 per channel."""
        shape, channels = bits.type.shape, bits.type.channels
        value = bits
        if len(shape) == 2:
            value = self.graph.add(Reshape((1, 1, 1, channels)), [value], f"{bits.name}.pixel")
        ones = self.graph.constant(f"{bits.name}.one", np.ones((channels, 1, 1, 1)), DType.BIT)
        value = self.graph.add(Conv2d(groups=channels), [value, ones], f"{bits.name}.numbers")
        return value if len(shape) == 4 else self.graph.add(Reshape(shape), [value], f"{bits.name}.vector")

    # -- building -----------------------------------------------------------------------------------------------------

    def add(self, step: Op, inputs: Sequence[Value], op: Operation, name: str | None = None) -> Value:
        return self.graph.add(step, inputs, name or op.name, source=op.name)

    def affine(
        self,
        terms: Sequence[Value],
        factors: Sequence[Array | float],
        add: Array | float,
        name: str,
        source: str,
    ) -> Value:
        """``sum terms * factors + add``, factors and addend per channel or one for all."""
        channels = terms[0].type.channels
        parameters = [np.broadcast_to(np.asarray(p, np.float64), (channels,)) for p in (*factors, add)]
        values = [self.graph.parameter(f"{name}.p{i}", p) for i, p in enumerate(parameters)]
        return self.graph.add(Affine(len(terms)), [*terms, *values], name, source=source)

    def two_slope(self, x: Value, positive: Array | float, negative: Array | float, name: str, source: str) -> Value:
        channels = x.type.channels
        parameters = [np.broadcast_to(np.asarray(p, np.float64), (channels,)) for p in (positive, negative, 0.0)]
        values = [self.graph.parameter(f"{name}.{n}", p) for n, p in zip(("positive", "negative", "bias"), parameters)]
        return self.graph.add(TwoSlope(), [x, *values], name, source=source)

    def clamp(self, x: Value, low: Array | float, high: Array | float, name: str, source: str) -> Value:
        limits = [np.broadcast_to(np.asarray(p, np.float64), (x.type.channels,)) for p in (low, high)]
        values = [self.graph.parameter(f"{name}.{n}", p) for n, p in zip(("low", "high"), limits)]
        return self.graph.add(Clamp(), [x, *values], name, source=source)

    def activated(self, op: Operation, x: Value, code: int) -> Value:
        """A fused activation function of the schema's ``ActivationFunctionType``."""
        name = f"{op.name}.activation"
        if code == 0:
            return x
        if code == 1:
            return self.two_slope(x, 1.0, 0.0, name, op.name)
        if code in (2, 3):
            low, high = {2: (-1.0, 1.0), 3: (0.0, 6.0)}[code]
            return self.clamp(x, low, high, name, op.name)
        if code == 4:
            return self.add(Unary("tanh"), [x], op, name)
        raise op.refuse(f"its fused activation function has the unknown number {code}")

    def shaped(self, op: Operation, value: Value, shape: tuple[int, ...] | None) -> Value:
        """The value's elements in their order under another shape.

        Raises:
            UnsupportedError: there is no such shape.
            ModelFileError: it has another number of elements.
        """
        if shape is None:
            raise op.refuse("its output has too many axes")
        if shape == value.type.shape:
            return value
        if int(np.prod(shape)) != value.type.size:
            raise op.damaged(f"its output has the shape {op.output().shape}, but it makes {value.type.shape}")
        return self.add(Reshape(shape), [value], op, f"{op.name}.shape")

    # -- results ------------------------------------------------------------------------------------------------------

    def define(self, op: Operation, entry: Entry, k: int = 0) -> None:
        """Enter output ``k``.

        Raises:
            ModelFileError: the file gives it another shape, or it is there already.
        """
        tensor, index = op.output(k), op.operator.outputs[k]
        shape = entry.shape
        if entry.packed:
            shape = (*shape[:-1], words(shape[-1]))
        if declared_shape(tensor, op.where) != shape:
            raise op.damaged(f"its output has the shape {tensor.shape}, but it makes {shape}")
        if index in self.entries or tensor.data is not None:
            raise op.damaged(f"'{clean_name(tensor.name)}' is made twice")
        if entry.data is None and entry.packed != (tensor.kind is TensorKind.INT32):
            raise op.damaged(f"its output is {tensor.kind.name.lower()}")
        self.entries[index] = entry

    def computed(self, op: Operation, value: Value, k: int = 0, *, shape: tuple[int, ...] | None = None) -> None:
        """Enter output ``k``, new numbers: an integer tensor limits (and, if wanted, rounds) them."""
        tensor = op.output(k)
        declared = declared_shape(tensor, op.where)
        if shape is not None and shape != declared:
            raise op.damaged(f"its output has the shape {tensor.shape}, but it makes {shape}")
        if graph_shape(declared) != value.type.shape:
            raise op.damaged(f"its output has the shape {tensor.shape}, but it makes {value.type.shape}")
        scale = scale_of(op, tensor)
        if scale is not None:
            self.integers += 1
            value = self._stored(op, value, tensor)
        self.define(op, Entry(declared, value), k)

    def _stored(self, op: Operation, value: Value, tensor: Tensor) -> Value:
        scale = scale_of(op, tensor)
        assert scale is not None
        if _is_whole(value, scale.scale, scale.zero_point, scale.range(tensor.kind)):
            return value
        if not value.type.dtype.is_float:
            value = self.affine([value], [1.0], 0.0, f"{op.name}.real", op.name)
        if not self.rounding:
            return self.clamp(value, *scale.range(tensor.kind), f"{op.name}.limits", op.name)
        quantize = Quantize(_DTYPES[tensor.kind], scale.scale, scale.zero_point)
        stored = self.add(quantize, [value], op, f"{op.name}.stored")
        return self.add(Dequantize(), [stored], op, f"{op.name}.read")

    def moved(self, op: Operation, entry: Entry, index: Array, k: int = 0) -> None:
        """Enter output ``k``: elements ``index`` of those of ``entry``, by their place in its own order."""
        if index.size > MAX_INDEX:
            raise op.refuse(f"it moves {index.size} elements; at most {MAX_INDEX} are possible")
        if entry.data is not None:
            self.define(op, constant(entry.data.ravel()[index]), k)
            return
        if entry.padding != NO_PADDING:
            entry = self.settled(op, entry)
        order = entry.order().ravel()[index]
        assert entry.value is not None
        shape = graph_shape(order.shape)
        mixed = entry.index is not None and shape is not None and graph_shape(entry.shape) is not None
        if mixed and operators(order.reshape(shape or ()), entry.value.type.shape) is None:
            entry, order = self.settled(op, entry), index
        self.define(op, entry.in_order(order), k)

    def settled(self, op: Operation, entry: Entry) -> Entry:
        """The entry with its order and padding made."""
        value = self.ordered(op, entry)
        factor = entry.factor
        if entry.factor != 1.0 and not value.type.dtype.is_packed:  # padding made numbers of bits
            value, factor = self.affine([value], [entry.factor], 0.0, f"{value.name}.real", op.name), 1.0
        return replace(entry, value=value, index=None, padding=NO_PADDING, fill=0.0, factor=factor)


def _find(op: Operation) -> Rule:
    if op.kind not in RULES:
        raise op.refuse(
            "this operator is not known" if op.operator.is_custom else "there is no operator for it here",
            fix=f"these are read: {', '.join(sorted(RULES))}",
        )
    return RULES[op.kind]


def _fills(dtype: DType) -> tuple[float, ...]:
    return (-1.0, 1.0) if dtype is DType.BIT else (-1.0, 0.0, 1.0)


def declared_shape(tensor: Tensor, where: str) -> tuple[int, ...]:
    """The shape that the file gives a tensor.

    Raises:
        ModelFileError: it is negative, empty or beyond any memory.
    """
    shape = tensor.shape
    if min(shape, default=1) < 1 or float(np.prod([float(s) for s in shape])) > MAX_ELEMENTS:
        raise ModelFileError(
            f"a tensor of shape {'x'.join(map(str, shape))} cannot be imported",
            where=where,
            fix="convert the model for a fixed input size, with a batch of 1",
        )
    return shape


def _is_whole(value: Value, scale: float, zero: int, limits: tuple[float, float]) -> bool:
    """Whether the integers of a tensor hold every value exactly: sums of bits times a whole multiple of its scale."""
    node = value.node
    factor, add = np.ones(1), np.zeros(1)
    if node is not None and isinstance(node.op, Affine) and node.op.terms == 1:
        parameters = [v.data for v in node.inputs[1:]]
        assert parameters[0] is not None and parameters[1] is not None
        factor, add = parameters[0], parameters[1]
        node = node.inputs[0].node
    if node is None or not isinstance(node.op, Conv2d) or not all(v.type.dtype.is_packed for v in node.inputs):
        return False
    taps = int(np.prod(node.inputs[1].type.shape[1:]))
    whole = all((p / scale == np.rint(p / scale)).all() for p in (factor, add))
    top = (np.abs(factor) * taps + add).max()
    bottom = (-np.abs(factor) * taps + add).min()
    return bool(whole and bottom >= limits[0] and top <= limits[1])
