"""Graph operators in terms of TensorFlow Lite's and Larq Compute Engine's (LCE), for the stock LCE interpreter.

Every value of the graph has one encoding in the file: ``float`` (f32; integers too), ``bits`` (packed words) or
``trits`` (two packed planes, for the lower and the higher threshold, whose mean is the value). Its tensors bear the
value's name, helpers have a suffix after a slash.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.foreign import check_graph, integer_threshold, refuse
from bdnet_deploy.export.tflite import convolution
from bdnet_deploy.export.tflite.builder import F32, I8, VALID, Builder
from bdnet_deploy.export.tflite.encoding import PLANES, Encoded
from bdnet_deploy.export.tflite.folding import FoldedSign, fold_signs
from bdnet_deploy.export.tflite.packing import WORD, words
from bdnet_deploy.export.tflite.schema import Array, Model
from bdnet_deploy.graph import (
    REPLICATE,
    Affine,
    AvgPool,
    Conv2d,
    DType,
    Graph,
    GroupMean,
    Node,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)

TARGET = "TensorFlow Lite"


class Lowering:
    """Translates one graph; the result is in ``model`` and in the records for the reader.

    ``profile`` is one of :data:`bdnet_deploy.formats.PROFILES`: what the runtime has beside the stock operators.

    Raises:
        UnsupportedError: an operator or operand that cannot be carried.
    """

    def __init__(self, graph: Graph, profile: str = "stock") -> None:
        self.graph = graph
        self.profile = profile
        self.model = Model(description="bdnet-deploy")
        self.b = Builder(self.model)
        self.bounds = check_graph(graph, TARGET, _EMIT)
        self.users = graph.users()
        self.env: dict[Value, Encoded] = {}
        #: Convolutions whose accumulators nothing but one Affine reads: they are emitted with it.
        self.pending: dict[Value, Node] = {}
        #: For the reader: see the docstring of :mod:`bdnet_deploy.export.tflite`.
        self.values: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []
        self.parameters: dict[str, dict[str, Any]] = {}
        self.thresholds: list[dict[str, Any]] = []
        self._cache: dict[tuple[Any, ...], int] = {}
        self._reserve()
        self._run()

    # -- walking the graph --------------------------------------------------------------------------------------------

    def _reserve(self) -> None:
        for value in (*self.graph.inputs, *(n.output for n in self.graph.nodes), *self.graph.constants()):
            for name in self._names(value):
                self.b.unique(name)

    @staticmethod
    def _names(value: Value) -> list[str]:
        """Names of the tensors of a value, reserved for them."""
        return [f"{value.name}/{p}" for p in PLANES] if value.type.dtype is DType.TRIT else [value.name]

    def _run(self) -> None:
        for value in self.graph.inputs:
            if value.type.dtype is not DType.F32:
                raise UnsupportedError(
                    f"an input of {value.type.dtype.value} cannot be exported to {TARGET}",
                    where=value.name,
                    fix="give the model a float32 input",
                )
            tensor = self.b.tensor(f"{value.name}/in", value.type.shape)
            self.model.inputs.append(tensor)
            self.define(value, Encoded("float", (tensor,)), ())
        for node in self.graph.nodes:
            _check(node)
        folds = fold_signs(self.graph)
        absorbed = {node for fold in folds.values() for node in fold.nodes[1:]}
        for node in self.graph.nodes:
            if node in folds:
                encoded = convolution.folded(self, node, folds[node])
                self.define(folds[node].output, encoded, folds[node].nodes)
            elif node not in absorbed and not self._defer(node):
                parts = [self.pending[v] for v in node.inputs if v in self.pending]
                self.define(node.output, _EMIT[node.op.name](self, node), (*parts, node))
        self.model.outputs = [self.f32(value) for value in self.graph.outputs]

    def _defer(self, node: Node) -> bool:
        """Leave a binary convolution to the one Affine that reads it."""
        readers = self.users.get(node.output, [])
        if not convolution.is_packed_product(node) or len(readers) != 1 or node.output in self.graph.outputs:
            return False
        if not isinstance(readers[0].op, Affine) or readers[0].inputs.count(node.output) != 1:
            return False
        self.pending[node.output] = node
        return True

    def define(self, value: Value, encoded: Encoded, nodes: tuple[Node, ...]) -> None:
        """Enter a value: its tensors get its name, unless they are another value's (the operator changes nothing)."""
        self.env[value] = encoded
        named = {t for v in self.values for t in v["tensors"]}
        if any(self.b.name(t) in named for t in encoded.tensors):
            return
        for tensor, name in zip(encoded.tensors, self._names(value)):
            self.model.tensors[tensor].name = name
        self.values.append(
            {
                "name": value.name,
                "encoding": encoded.encoding,
                "shape": list(value.type.shape),
                "tensors": [self.b.name(t) for t in encoded.tensors],
                "nodes": [n.name for n in nodes],
                "source": nodes[-1].source if nodes else "",
            }
        )

    # -- values in other forms ----------------------------------------------------------------------------------------

    def f32(self, value: Value) -> int:
        """The value as a float32 tensor."""
        encoded = self.env[value]
        if encoded.encoding == "float":
            return encoded.tensors[0]
        key = (value, "f32")
        if key not in self._cache:
            name = f"{value.name}/f32"
            channels = value.type.channels
            planes = [self.b.lce_dequantize(t, channels, F32, f"{name}/plane") for t in encoded.tensors]
            if len(planes) == 2:
                total = self.b.add(planes[0], planes[1], f"{name}/sum")
                planes = [self.b.multiply(total, self.constant("half", np.array([0.5], np.float32)), name)]
            self._cache[key] = planes[0]
        return self._cache[key]

    def int8(self, value: Value) -> tuple[int, float]:
        """A bit or trit value as int8 of {-1, 0, +1}, and the scale that the file gives these integers."""
        encoded = self.env[value]
        scale = 1.0 if encoded.encoding == "bits" else 2.0
        key = (value, "int8")
        if key not in self._cache:
            name = f"{value.name}/int8"
            channels = value.type.channels
            planes = [self.b.lce_dequantize(t, channels, I8, f"{name}/plane") for t in encoded.tensors]
            if len(planes) == 2:
                # Integers -1 and +1 of scale 1 add up to {-2, 0, 2}, which are {-1, 0, 1} of scale 2: no rounding.
                total = self.b.tensor(name, value.type.shape, I8, scale)
                planes = [self.b.op("ADD", planes, total, pot_scale_int16=0)]
            self._cache[key] = planes[0]
        return self._cache[key], scale

    # -- constants ----------------------------------------------------------------------------------------------------

    def constant(self, name: str, data: Array) -> int:
        """A constant that the graph does not have; one tensor for equal name and content."""
        key = (name, data.dtype.str, data.shape, data.tobytes())
        if key not in self._cache:
            self._cache[key] = self.b.constant(name, data)
        return self._cache[key]

    def parameter(self, value: Value, factor: float = 1.0) -> int:
        """A per-channel f32 parameter of the graph times ``factor`` (a power of two, or -1)."""
        assert value.data is not None
        key = (value, factor)
        if key not in self._cache:
            # 0 - x, not -x: there is no -0.0 in it.
            data = np.float32(0) - value.data if factor == -1.0 else value.data * np.float32(factor)
            tensor = self.b.constant(f"{value.name}/times({factor:g})", data.astype(np.float32))
            if factor == 1.0:
                self.model.tensors[tensor].name = value.name
            self.parameters.setdefault(value.name, {"tensor": self.b.name(tensor), "factor": factor})
            self._cache[key] = tensor
        return self._cache[key]

    def is_all(self, value: Value, number: float) -> bool:
        """Whether a parameter is ``number`` throughout, so that its operator can be left out."""
        if value.data is None or not bool((value.data == np.float32(number)).all()):
            return False
        self.parameters.setdefault(value.name, {"fill": number, "size": int(value.data.size)})
        return True

    def quantized(self, x: int, negated_threshold: int, name: str) -> int:
        """Packed signs of x - threshold. Where x equals the threshold the sum is +0.0, as LceQuantize needs it."""
        return self.b.lce_quantize(self.b.add(x, negated_threshold, f"{name}/shifted"), name)

    def folded_sign(self, x: int, fold: FoldedSign) -> int:
        """Packed signs of integer accumulators in a float tensor."""
        threshold = self.b.constant(f"{fold.output.name}/threshold", -fold.threshold.astype(np.float32))
        self.record_threshold(fold, "float", threshold)
        return self.quantized(x, threshold, f"{fold.output.name}/bits")

    def record_threshold(self, fold: FoldedSign, form: str, tensor: int) -> None:
        self.thresholds.append(
            {
                "value": fold.output.name,
                "form": form,
                "tensor": self.b.name(tensor),
                "taps": int(np.prod(fold.nodes[0].inputs[1].type.shape[1:])),
                "flipped": np.flatnonzero(fold.flipped).tolist(),
            }
        )


# -- operators --------------------------------------------------------------------------------------------------------


def _check(node: Node) -> None:
    """Refuse what has an operator here, but not with these values: packed words are -1 and +1, padding is a number."""
    op = node.op
    if node.output.type.dtype is DType.UBIT:
        why = "its values are 0 and 1, and packed bits are -1 and +1"
        raise refuse(node, why, target=TARGET, fix="export to onnx or bdn")
    if isinstance(op, Conv2d) and op.pad_value == REPLICATE and any(op.padding):
        raise refuse(node, "its padding repeats the border", target=TARGET, fix="export to onnx or bdn")


def _sign(low: Lowering, node: Node) -> Encoded:
    return Encoded("bits", _planes(low, node))


def _ternarize(low: Lowering, node: Node) -> Encoded:
    return Encoded("trits", _planes(low, node))


def _planes(low: Lowering, node: Node) -> tuple[int, ...]:
    x, *thresholds = node.inputs
    planes = []
    for threshold in thresholds:
        if threshold.type.dtype.is_float:
            negated = low.parameter(threshold, -1.0)
        else:
            exact = integer_threshold(threshold, low.bounds[x])
            negated = low.b.constant(f"{threshold.name}/negated", np.float32(0) - exact)
            low.parameters[threshold.name] = {"tensor": low.b.name(negated), "factor": -1.0, "integer": True}
        planes.append(low.quantized(low.f32(x), negated, f"{node.name}/plane"))
    return tuple(planes)


def _affine(low: Lowering, node: Node) -> Encoded:
    op = node.op
    assert isinstance(op, Affine)
    xs, muls, add = node.inputs[: op.terms], node.inputs[op.terms : -1], node.inputs[-1]
    fused = [v for v in xs if v in low.pending]
    terms = []
    for x, mul in zip(xs, muls):
        if x in low.pending:
            # The first convolution takes the bias along.
            bias = add if x is fused[0] else None
            terms.append(convolution.packed_product(low, low.pending[x], mul, bias))
        elif low.is_all(mul, 1.0):
            terms.append(low.f32(x))
        else:
            terms.append(low.b.multiply(low.f32(x), low.parameter(mul), f"{node.name}/term"))
    result = terms[0] if op.terms == 1 else low.b.add(terms[0], terms[1], f"{node.name}/sum")
    if not fused and not low.is_all(add, 0.0):
        result = low.b.add(result, low.parameter(add), f"{node.name}/biased")
    return Encoded("float", (result,))


def _two_slope(low: Lowering, node: Node) -> Encoded:
    x, positive, negative, bias = node.inputs
    tensor, b = low.f32(x), low.b
    shape = x.type.shape
    if low.is_all(positive, 1.0):
        if low.is_all(negative, 0.0):
            tensor = b.op("RELU", (tensor,), b.tensor(f"{node.name}/slope", shape))
        elif not low.is_all(negative, 1.0):
            tensor = b.op("PRELU", (tensor, low.parameter(negative)), b.tensor(f"{node.name}/slope", shape))
    else:
        # One of the two products is zero, so their sum is exact.
        zero = low.constant("zero", np.zeros(1, np.float32))
        above = b.op("RELU", (tensor,), b.tensor(f"{node.name}/above", shape))
        below = b.op("MINIMUM", (tensor, zero), b.tensor(f"{node.name}/below", shape))
        above = b.multiply(above, low.parameter(positive), f"{node.name}/above")
        below = b.multiply(below, low.parameter(negative), f"{node.name}/below")
        tensor = b.add(above, below, f"{node.name}/slope")
    if not low.is_all(bias, 0.0):
        tensor = b.add(tensor, low.parameter(bias), f"{node.name}/biased")
    return Encoded("float", (tensor,))


def _avg_pool(low: Lowering, node: Node) -> Encoded:
    op, b = node.op, low.b
    assert isinstance(op, AvgPool)
    output = b.tensor(f"{node.name}/mean", node.output.type.shape)
    kernel = {"filter_h": op.kernel[0], "filter_w": op.kernel[1]}
    strides = {"stride_h": op.strides[0], "stride_w": op.strides[1]}
    b.op("AVERAGE_POOL_2D", (low.f32(node.inputs[0]),), output, padding=VALID, **kernel, **strides)
    return Encoded("float", (output,))


def _global_avg_pool(low: Lowering, node: Node) -> Encoded:
    # Of integers the reference gives the sum.
    operator = "MEAN" if node.output.type.dtype.is_float else "SUM"
    return Encoded("float", (low.b.reduce(operator, low.f32(node.inputs[0]), (1, 2), f"{node.name}/mean"),))


def _group_mean(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, GroupMean)
    shape = node.output.type.shape
    groups = low.b.reshape(low.f32(node.inputs[0]), (*shape, node.op.size), f"{node.name}/groups")
    return Encoded("float", (low.b.reduce("MEAN", groups, (len(shape),), f"{node.name}/mean"),))


def _repeat(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, Repeat)
    times, packable = node.op.times, node.inputs[0].type.channels % WORD == 0
    return _each_plane(low, node, packable, lambda t: low.b.concatenate([t] * times, f"{node.name}/repeated"))


def _reshape(low: Lowering, node: Node) -> Encoded:
    assert isinstance(node.op, Reshape)
    shape, channels = node.op.shape, node.inputs[0].type.channels
    packable = shape[-1] == channels or (shape[-1] % WORD == 0 and channels % WORD == 0)

    def change(tensor: int) -> int:
        packed = low.model.tensors[tensor].kind is not F32
        return low.b.reshape(tensor, (*shape[:-1], words(shape[-1])) if packed else shape, f"{node.name}/reshaped")

    return _each_plane(low, node, packable, change)


def _each_plane(low: Lowering, node: Node, packable: bool, change: Any) -> Encoded:
    """Apply ``change`` to the tensors of a value: to packed words if possible, else to floats that are packed again."""
    source = low.env.get(node.inputs[0])
    assert source is not None
    if source.encoding == "float" or packable:
        return Encoded(source.encoding, tuple(change(t) for t in source.tensors))
    channels = node.inputs[0].type.channels
    floats = [low.b.lce_dequantize(t, channels, F32, f"{node.name}/unpacked") for t in source.tensors]
    return Encoded(source.encoding, tuple(low.b.lce_quantize(change(t), f"{node.name}/packed") for t in floats))


_EMIT: dict[str, Any] = {
    Sign.name: _sign,
    Ternarize.name: _ternarize,
    Affine.name: _affine,
    TwoSlope.name: _two_slope,
    AvgPool.name: _avg_pool,
    "global_avg_pool": _global_avg_pool,
    GroupMean.name: _group_mean,
    Repeat.name: _repeat,
    Reshape.name: _reshape,
    "conv2d": convolution.plain,
    "linear": convolution.plain,
}
#: Names of the operators that can be written.
OPERATORS = frozenset(_EMIT)
