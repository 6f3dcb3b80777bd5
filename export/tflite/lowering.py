"""Graph operators in terms of TensorFlow Lite's and Larq Compute Engine's (LCE), for the stock LCE interpreter.

Every value of the graph is defined in one encoding (:mod:`.encoding`); a reader that needs another converts it, once. The
tensors of a value bear its name, helpers have a suffix after a slash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bdnet_deploy.export.tflite import attention, convolution, functions, moves, pointwise, pools
from bdnet_deploy.export.tflite.builder import Builder
from bdnet_deploy.export.tflite.checks import check_graph
from bdnet_deploy.export.tflite.encoding import FLOAT, PACKED, PLANES, Encoded, to_float, to_int8, to_planes
from bdnet_deploy.export.tflite.forms import Forms
from bdnet_deploy.export.tflite.geometry import Product
from bdnet_deploy.export.tflite.schema import Array, Model, Signature
from bdnet_deploy.export.tflite.storage import Record
from bdnet_deploy.graph import Affine, DType, Graph, Node, Sign, Ternarize, Value

_EMIT: dict[str, Callable[[Any, Node], Encoded]] = {
    **attention.EMIT,
    **convolution.EMIT,
    **functions.EMIT,
    **moves.EMIT,
    **pointwise.EMIT,
    **pools.EMIT,
}
#: Names of the operators that can be written.
OPERATORS = frozenset(_EMIT)


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
        #: The largest absolute value of every value that is not real.
        self.bounds = check_graph(graph, OPERATORS)
        self.users = graph.users()
        self.env: dict[Value, Encoded] = {}
        #: Convolutions whose accumulators only one Affine or Sign reads: they are emitted with it.
        self.pending: dict[Value, Node] = {}
        #: For the reader: see the docstring of :mod:`bdnet_deploy.export.tflite`.
        self.values: list[dict[str, Any]] = []
        #: Name of a constant of the graph -> how it lies in the file.
        self.stored: dict[str, Record] = {}
        self.forms = Forms()
        self._named: set[int] = set()
        #: What was emitted once and can be read again.
        self.cache: dict[tuple[Any, ...], Any] = {}
        for value in (*graph.inputs, *(n.output for n in graph.nodes), *graph.constants()):
            for name in (value.name, *self._plane_names(value)):
                self.b.unique(name)
        self._run()

    # -- walking the graph --------------------------------------------------------------------------------------------

    @staticmethod
    def _plane_names(value: Value) -> list[str]:
        return [f"{value.name}/{p}" for p in PLANES] if value.type.dtype is DType.TRIT else []

    def _run(self) -> None:
        for value in self.graph.inputs:
            tensor = self.b.tensor(f"{value.name}/in", value.type.shape)
            self.model.inputs.append(tensor)
            self.define(value, Encoded(FLOAT, (tensor,)), ())
        for node in self.graph.nodes:
            if not self._defer(node):
                parts = [self.pending[v] for v in node.inputs if v in self.pending]
                self.define(node.output, _EMIT[node.op.name](self, node), (*parts, node))
        self.model.outputs = [self.f32(value) for value in self.graph.outputs]
        names = [dict(zip((v.name for v in values), tensors, strict=True)) for values, tensors in
                 ((self.graph.inputs, self.model.inputs), (self.graph.outputs, self.model.outputs))]  # fmt: skip
        self.model.signatures = [Signature("serving_default", *names)]

    def _defer(self, node: Node) -> bool:
        """Leave a convolution to the one Affine or Sign that reads it, where one operator does both."""
        readers = self.users.get(node.output, [])
        if node.op.name not in ("conv2d", "linear") or len(readers) != 1 or node.output in self.graph.outputs:
            return False
        reader = readers[0].op
        if readers[0].inputs.count(node.output) != 1:
            return False
        if isinstance(reader, Sign):
            possible = convolution.makes_signs(self, node)
        elif isinstance(reader, Ternarize):
            possible = convolution.makes_trits(self, node)
        else:
            possible = isinstance(reader, Affine) and convolution.takes_affine(self, node, readers[0])
        if possible:
            self.pending[node.output] = node
        return possible

    def define(self, value: Value, encoded: Encoded, nodes: tuple[Node, ...]) -> None:
        """Enter a value: its tensors get its name, unless they are another value's (the operator changes nothing)."""
        self.env[value] = encoded
        if not self._named.isdisjoint(encoded.tensors):
            return
        self._named.update(encoded.tensors)
        names = self._plane_names(value) if len(encoded.tensors) > 1 else [value.name]
        for tensor, name in zip(encoded.tensors, names, strict=True):
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

    # -- values in other encodings ------------------------------------------------------------------------------------

    def f32(self, value: Value) -> int:
        """The value as a float32 tensor."""
        if value.is_constant:
            return self.parameter(value)
        encoded = self.env[value]
        if encoded.encoding == FLOAT:
            return encoded.tensors[0]
        key = (value, "f32")
        if key not in self.cache:
            self.cache[key] = to_float(self, encoded, value.type.channels, f"{value.name}/f32")
        return int(self.cache[key])

    def planes(self, value: Value) -> tuple[int, ...]:
        """A bit, ubit or trit value as its packed planes."""
        encoding, key = PACKED[value.type.dtype], (value, "planes")
        if not value.is_constant and self.env[value].encoding == encoding:
            return self.env[value].tensors
        if key not in self.cache:
            self.cache[key] = to_planes(self, self.f32(value), encoding, value.name)
        return tuple(self.cache[key])

    def int8(self, value: Value) -> tuple[int, float]:
        """A bit, ubit or trit value as int8 of {-1, 0, +1}, and the scale that the file gives these integers."""
        key = (value, "int8")
        if key not in self.cache:
            encoded = Encoded(FLOAT, (self.f32(value),)) if value.is_constant else self.env[value]
            self.cache[key] = to_int8(self, encoded, value.type.shape, f"{value.name}/int8")
        tensor, scale = self.cache[key]
        return tensor, scale

    def pack_float(self, tensor: int, dtype: DType, name: str) -> tuple[int, ...]:
        """Float32 numbers of a packed dtype as its planes."""
        return to_planes(self, tensor, PACKED[dtype], name)

    def padded(self, tensor: int, padding: tuple[int, int, int, int], value: int, name: str) -> int:
        """A map with ``value`` around it, in the units that are stored; once for all who need it."""
        key = (tensor, padding, value)
        if key not in self.cache:
            self.cache[key] = self.b.pad(tensor, padding, value, name)
        return int(self.cache[key])

    def repeat_border(self, tensor: int, p: Product) -> int:
        """The input of a product with the padding that repeats the border, if it has that."""
        if not p.repeats_border:
            return tensor
        for axis, indices in enumerate(p.repeated(), start=1):
            if len(indices) > p.shape[axis]:
                tensor = self.b.gather(tensor, indices, axis, f"{p.node.name}/border")
        return tensor

    # -- constants ----------------------------------------------------------------------------------------------------

    def constant(self, name: str, data: Array) -> int:
        """A constant that the graph does not have; one tensor for equal name and content."""
        key = (name, data.dtype.str, data.shape, data.tobytes())
        if key not in self.cache:
            self.cache[key] = self.b.constant(name, data)
        return int(self.cache[key])

    def number(self, value: float) -> int:
        """One float32 for all elements."""
        return self.constant("number", np.array([value], np.float32))

    def parameter(self, value: Value, factor: float = 1.0) -> int:
        """A constant of the graph as float32, times ``factor`` (a power of two, or -1)."""
        assert value.data is not None
        key = (value, factor)
        if key not in self.cache:
            # 0 - x, not -x: there is no -0.0 in it.
            real = value.data.astype(np.float32)
            data = np.float32(0) - real if factor == -1.0 else real * np.float32(factor)
            tensor = self.b.constant(f"{value.name}/times({factor:g})", data)
            if factor == 1.0:
                self.model.tensors[tensor].name = value.name
                self.stored[value.name] = {"form": "same"}
            else:
                record = {"form": "times", "factor": factor, "tensors": [self.b.name(tensor)]}
                self.stored.setdefault(value.name, record)
            self.cache[key] = tensor
        return int(self.cache[key])

    def is_all(self, value: Value, number: float) -> bool:
        """Whether a parameter is ``number`` throughout, so that its operator can be left out."""
        if value.data is None or not bool((value.data == np.float32(number)).all()):
            return False
        self.stored.setdefault(value.name, {"form": "fill", "value": number})
        return True
