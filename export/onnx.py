"""ONNX with standard operators (opset 17): ``write(graph)`` gives the bytes of an ``.onnx``, for any runtime.

Everything is float32: bits and trits as -1.0, 0.0, 1.0 and integer accumulators exactly. The inputs and outputs of
the model are NHWC as in the graph, with a free batch; inside, maps are NCHW, transposed once at each end. Tensors
bear the names of the graph's values and constants.

Under the metadata key ``bdnet_deploy`` lies a JSON object for our reader: ``producer``, ``model``, ``numerics``,
``io``; ``values`` (name, shape, tensor, user's layer), ``weights`` (layer, initializer, OHWI or OI shape) and
``parameters`` (constant of the graph: initializer, or the number that it is throughout).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import require
from bdnet_deploy.export.foreign import (
    METADATA_KEY,
    Written,
    check_graph,
    describe,
    integer_threshold,
    without_unpacking,
)
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
    Value,
)
from bdnet_deploy.iodesc import IODescription

__all__ = ["OPERATORS", "TO_NCHW", "TO_NHWC", "write"]

Array = npt.NDArray[Any]
TARGET = "ONNX"
OPSET = 17
#: The file version that belongs to opset 17; older readers accept it.
IR_VERSION = 8
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def write(
    graph: Graph,
    *,
    io: IODescription | None = None,
    profile: str = "portable",
    meta: Mapping[str, Any] | None = None,
) -> Written:
    """An ``.onnx`` that any ONNX runtime runs. Equal graphs give equal bytes.

    Args:
        graph: numerics "float".
        io: the I/O description to store.
        profile: ``"portable"``.
        meta: what made the file, to store.

    Raises:
        UnsupportedError: another numerics, or an operator that cannot be carried; ``where`` names the user's layer.
        MissingPackageError: the package onnx is not installed.
    """
    graph = without_unpacking(graph)
    writer = _Writer(graph)
    onnx = writer.onnx
    model = onnx.helper.make_model(
        writer.proto(),
        producer_name="bdnet-deploy",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    records = {"values": writer.values, "weights": writer.weights, "parameters": writer.parameters}
    onnx.helper.set_model_props(
        model, {METADATA_KEY: describe(graph, io, meta=dict(meta or {}), **records).decode("utf-8")}
    )
    onnx.checker.check_model(model)
    return Written(bytes(model.SerializeToString(deterministic=True)))


class _Writer:
    """Collects the nodes and initializers of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.onnx = require("onnx", extra="onnx")
        self.graph = graph
        self.bounds = check_graph(graph, TARGET, _EMIT)
        self.nodes: list[Any] = []
        self.initializers: dict[str, Array] = {}
        self.values: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []
        self.parameters: dict[str, dict[str, Any]] = {}
        self._tensors: dict[Value, str] = {}
        self._own: dict[str, str] = {}
        everything = (*graph.inputs, *(n.output for n in graph.nodes), *graph.constants())
        self._names = {v.name for v in everything}
        for value in graph.inputs:
            self._define(value, self._enter(value), "")
        for node in graph.nodes:
            _EMIT[node.op.name](self, node)
            self._define(node.output, self.inner(node.output), node.source)
        for value in graph.outputs:
            if self.inner(value) != value.name:
                self.op("Transpose", [self.inner(value)], value.name, perm=TO_NHWC)

    def proto(self) -> Any:
        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        inputs = [
            helper.make_tensor_value_info(v.name, helper.np_dtype_to_tensor_dtype(_dtype(v)), _free(v))
            for v in self.graph.inputs
        ]
        outputs = [helper.make_tensor_value_info(v.name, float32, _free(v)) for v in self.graph.outputs]
        initializers = [self.onnx.numpy_helper.from_array(a, name) for name, a in self.initializers.items()]
        return helper.make_graph(self.nodes, self.graph.name, inputs, outputs, initializers)

    # -- names --------------------------------------------------------------------------------------------------------

    def inner(self, value: Value) -> str:
        """Name of the tensor inside: maps at the ends of the model exist in both layouts."""
        at_end = value in self.graph.outputs and _is_map(value)
        return f"{value.name}/nchw" if at_end else value.name

    def __getitem__(self, value: Value) -> str:
        return self._tensors[value]

    def _define(self, value: Value, tensor: str, source: str) -> None:
        self._tensors[value] = tensor
        self.values.append({"name": value.name, "tensor": tensor, "shape": list(value.type.shape), "source": source})

    def _enter(self, value: Value) -> str:
        """The tensor of an input: float32, NCHW."""
        tensor = value.name
        if value.type.dtype is not DType.F32:
            tensor = self.op("Cast", [tensor], self.unique(f"{value.name}/f32"), to=self.onnx.TensorProto.FLOAT)
        if _is_map(value):
            tensor = self.op("Transpose", [tensor], self.unique(f"{value.name}/nchw"), perm=TO_NCHW)
        return tensor

    def unique(self, name: str) -> str:
        candidate, n = name, 0
        while candidate in self._names:
            n += 1
            candidate = f"{name}.{n}"
        self._names.add(candidate)
        return candidate

    # -- nodes and constants ------------------------------------------------------------------------------------------

    def op(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def helper_op(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        return self.op(operator, inputs, self.unique(name), **attributes)

    def constant(self, name: str, data: Any, dtype: str = "float32") -> str:
        """A constant of our own, shared by all that ask for the same name."""
        if name not in self._own:
            self._own[name] = self.unique(name)
            self.initializers[self._own[name]] = np.array(data, dtype)
        return self._own[name]

    def parameter(self, value: Value, like: Value, bound: int | None = None) -> str:
        """A per-channel constant of the graph that broadcasts over ``like``; integer thresholds need its ``bound``."""
        assert value.data is not None
        data = value.data if bound is None else integer_threshold(value, bound)
        shape = (-1, 1, 1) if _is_map(like) else (-1,)
        name = value.name
        if name in self.initializers and self.initializers[name].ndim != len(shape):
            # It broadcasts over maps and over vectors.
            name = f"{name}/{'map' if _is_map(like) else 'vector'}"
        self.initializers.setdefault(name, data.astype(np.float32).reshape(shape))
        record: dict[str, Any] = {"tensor": name}
        if bound is not None:
            record["integer"] = True
        self.parameters.setdefault(value.name, record)
        return name


def _is_map(value: Value) -> bool:
    return len(value.type.shape) == 4


def _channel_axis(value: Value) -> int:
    return 1 if _is_map(value) else len(value.type.shape) - 1


def _dtype(value: Value) -> np.dtype[Any]:
    return value.type.dtype.numpy


def _free(value: Value) -> list[str | int]:
    """The shape with a free batch."""
    return ["N", *value.type.shape[1:]]


# -- operators --------------------------------------------------------------------------------------------------------


def _conv2d(writer: _Writer, node: Node) -> None:
    op, (x, w) = node.op, node.inputs
    assert isinstance(op, Conv2d)
    top, bottom, left, right = op.padding
    pads, source = [top, left, bottom, right], writer[x]
    if op.pad_value == REPLICATE and any(pads):
        amounts = writer.constant(f"{node.name}/pads", [0, 0, top, left, 0, 0, bottom, right], "int64")
        source, pads = writer.helper_op("Pad", [source, amounts], f"{node.name}/padded", mode="edge"), [0, 0, 0, 0]
    elif op.pad_value and any(pads):
        amounts = writer.constant(f"{node.name}/pads", [0, 0, top, left, 0, 0, bottom, right], "int64")
        value = writer.constant(f"number({op.pad_value})", op.pad_value)
        source, pads = writer.helper_op("Pad", [source, amounts, value], f"{node.name}/padded"), [0, 0, 0, 0]
    geometry = {"kernel_shape": w.type.shape[1:3], "strides": op.strides, "dilations": op.dilation}
    weights = _weights(writer, node, w)
    writer.op("Conv", [source, weights], writer.inner(node.output), pads=pads, group=op.groups, **geometry)


def _linear(writer: _Writer, node: Node) -> None:
    x, w = node.inputs
    writer.op("Gemm", [writer[x], _weights(writer, node, w)], writer.inner(node.output), transB=1)


def _weights(writer: _Writer, node: Node, w: Value) -> str:
    """OHWI as ONNX's OIHW; OI stays."""
    assert w.data is not None
    data = w.data.astype(np.float32)
    writer.initializers[w.name] = np.ascontiguousarray(data.transpose(0, 3, 1, 2)) if data.ndim == 4 else data
    writer.weights.append(
        {
            "node": node.name,
            "tensor": w.name,
            "shape": list(w.type.shape),
            "integer": not w.type.dtype.is_float,
        }
    )
    return w.name


def _affine(writer: _Writer, node: Node) -> None:
    op = node.op
    assert isinstance(op, Affine)
    xs, muls, add = node.inputs[: op.terms], node.inputs[op.terms : -1], node.inputs[-1]
    out = node.output
    products = [
        writer.helper_op("Mul", [writer[x], writer.parameter(mul, out)], f"{node.name}/term")
        for x, mul in zip(xs, muls)
    ]
    total = products[0] if len(products) == 1 else writer.helper_op("Add", products, f"{node.name}/sum")
    writer.op("Add", [total, writer.parameter(add, out)], writer.inner(out))


def _two_slope(writer: _Writer, node: Node) -> None:
    x, positive, negative, bias = node.inputs
    assert positive.data is not None
    tensor, name = writer[x], node.name
    if bool((positive.data == 1).all()):
        writer.parameters.setdefault(positive.name, {"fill": 1.0, "size": int(positive.data.size)})
        line = writer.helper_op("PRelu", [tensor, writer.parameter(negative, x)], f"{name}/slope")
    else:
        above = writer.helper_op("GreaterOrEqual", [tensor, writer.constant("number(0)", 0)], f"{name}/above")
        slopes = [writer.parameter(positive, x), writer.parameter(negative, x)]
        slope = writer.helper_op("Where", [above, *slopes], f"{name}/slopes")
        line = writer.helper_op("Mul", [tensor, slope], f"{name}/slope")
    writer.op("Add", [line, writer.parameter(bias, x)], writer.inner(node.output))


def _sign(writer: _Writer, node: Node) -> None:
    below = _below(writer, node, 1)
    numbers = [writer.constant(f"number({i})", i) for i in node.output.type.dtype.range]
    writer.op("Where", [below, *numbers], writer.inner(node.output))


def _ternarize(writer: _Writer, node: Node) -> None:
    numbers = [writer.constant(f"number({i})", i) for i in (-1, 0, 1)]
    upper = writer.helper_op("Where", [_below(writer, node, 2), *numbers[1:]], f"{node.name}/upper")
    writer.op("Where", [_below(writer, node, 1), numbers[0], upper], writer.inner(node.output))


def _below(writer: _Writer, node: Node, index: int) -> str:
    """``x < threshold``: a NaN is not below."""
    x, threshold = node.inputs[0], node.inputs[index]
    bound = None if threshold.type.dtype.is_float else writer.bounds[x]
    return writer.helper_op("Less", [writer[x], writer.parameter(threshold, x, bound)], f"{node.name}/below")


def _avg_pool(writer: _Writer, node: Node) -> None:
    op = node.op
    assert isinstance(op, AvgPool)
    source, output = writer[node.inputs[0]], writer.inner(node.output)
    writer.op("AveragePool", [source], output, kernel_shape=op.kernel, strides=op.strides)


def _global_avg_pool(writer: _Writer, node: Node) -> None:
    source, output = writer[node.inputs[0]], writer.inner(node.output)
    if node.output.type.dtype.is_float:
        mean = writer.helper_op("GlobalAveragePool", [source], f"{node.name}/mean")
        writer.op("Flatten", [mean], output, axis=1)
    else:
        # Of integers the reference gives the sum.
        writer.op("ReduceSum", [source, writer.constant("axes(2,3)", [2, 3], "int64")], output, keepdims=0)


def _group_mean(writer: _Writer, node: Node) -> None:
    assert isinstance(node.op, GroupMean)
    x, out, size = node.inputs[0], node.output, node.op.size
    axis, shape = _channel_axis(x), list(out.type.shape)
    if _is_map(x):
        shape = [shape[i] for i in TO_NCHW]
    shape.insert(axis + 1, size)
    groups = _reshaped(writer, writer[x], shape, writer.unique(f"{node.name}/groups"))
    writer.op("ReduceMean", [groups], writer.inner(out), axes=[axis + 1], keepdims=0)


def _repeat(writer: _Writer, node: Node) -> None:
    assert isinstance(node.op, Repeat)
    x = node.inputs[0]
    writer.op("Concat", [writer[x]] * node.op.times, writer.inner(node.output), axis=_channel_axis(x))


def _reshape(writer: _Writer, node: Node) -> None:
    """In the graph's order of elements, which is NHWC."""
    assert isinstance(node.op, Reshape)
    x, out = node.inputs[0], node.output
    source, shape, output = writer[x], list(node.op.shape), writer.inner(out)
    if _is_map(x) and x.type.shape[1:3] != (1, 1):
        source = writer.helper_op("Transpose", [source], f"{node.name}/nhwc", perm=TO_NHWC)
    if _is_map(out):
        source = _reshaped(writer, source, shape, writer.unique(f"{node.name}/shaped"))
        writer.op("Transpose", [source], output, perm=TO_NCHW)
    else:
        _reshaped(writer, source, shape, output)


def _reshaped(writer: _Writer, source: str, shape: Sequence[int], output: str) -> str:
    target = writer.constant(f"shape{tuple(shape)}", [-1, *shape[1:]], "int64")
    return writer.op("Reshape", [source, target], output)


_EMIT: dict[str, Callable[[_Writer, Node], None]] = {
    "affine": _affine,
    "avg_pool": _avg_pool,
    "conv2d": _conv2d,
    "global_avg_pool": _global_avg_pool,
    "group_mean": _group_mean,
    "linear": _linear,
    "repeat": _repeat,
    "reshape": _reshape,
    "sign": _sign,
    "ternarize": _ternarize,
    "two_slope": _two_slope,
}
#: Names of the operators that can be written.
OPERATORS = frozenset(_EMIT)
