"""A :class:`~bdnet_deploy.export.tflite.schema.Model` as the bytes of a ``.tflite`` file, and back.

Writing is deterministic; every buffer starts at a multiple of 16 bytes, and equal constants share one. Reading trusts
nothing: each offset and length is checked against the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import flatbuffers
import numpy as np

from bdnet_deploy.errors import ModelFileError, UnsupportedError
from bdnet_deploy.export.tflite.operator_names import NAMES
from bdnet_deploy.export.tflite.schema import (
    BUILTINS,
    CUSTOM,
    IDENTIFIER,
    VERSION,
    Array,
    Model,
    Operator,
    Signature,
    Tensor,
    TensorKind,
)

_ALIGNMENT = 16
# Far above what converters write; without them overlapping vectors of a hostile file could keep the reader busy for days.
_MAX_RANK, _MAX_OPERANDS, _MAX_STRING, _MAX_METADATA, _MAX_SIGNATURES = 8, 4096, 1 << 16, 64, 64
#: Names of a sound file lie side by side, so that together they are no longer than the file; shared ones count twice.
_NAMES_PER_BYTE = 4
_T = TypeVar("_T")


# -- writing ----------------------------------------------------------------------------------------------------------


def to_bytes(model: Model) -> bytes:
    """The file: little-endian, identifier ``TFL3``."""
    b = _Builder()
    buffers = _Buffers()
    tensors = [_write_tensor(b, t, buffers.index(t.data)) for t in model.tensors]
    codes: dict[tuple[str, int], int] = {}
    operators = [_write_operator(b, op, codes.setdefault((op.name, op.version), len(codes))) for op in model.operators]
    vectors = [
        _offsets(b, tensors),
        _scalars(b, np.array(model.inputs, "<i4")),
        _scalars(b, np.array(model.outputs, "<i4")),
        _offsets(b, operators),
        b.CreateString("main"),
    ]
    subgraphs = _offsets(b, [_table(b, [("offset", v) for v in vectors])])
    metadata = []
    for name, content in model.metadata.items():
        key = b.CreateString(name)
        metadata.append(_table(b, [("offset", key), ("u32", buffers.index(np.frombuffer(content, np.uint8)))]))
    metadata_vector = _offsets(b, metadata)
    code_vector = _offsets(b, [_write_code(b, name, version) for name, version in codes])
    buffer_vector = _offsets(b, [_table(b, [("offset", _scalars(b, data, _ALIGNMENT))]) for data in buffers.contents])
    signatures = [("offset", _offsets(b, [_write_signature(b, s) for s in model.signatures]))]
    root = _table(
        b,
        [
            ("u32", VERSION),
            ("offset", code_vector),
            ("offset", subgraphs),
            ("offset", b.CreateString(model.description)),
            ("offset", buffer_vector),
            ("offset", 0),
            ("offset", metadata_vector),
            *(signatures if model.signatures else []),
        ],
    )
    b.Finish(root, file_identifier=IDENTIFIER)
    return bytes(b.Output())


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Writes what is small and often the same once: shapes, scales, options."""

    def __init__(self) -> None:
        super().__init__(1 << 16)
        self._shared: dict[tuple[Any, ...], int] = {}

    def once(self, key: tuple[Any, ...], write: Callable[[], int]) -> int:
        if key not in self._shared:
            self._shared[key] = write()
        return self._shared[key]

    def scalars(self, data: Array) -> int:
        return self.once((data.dtype.str, data.tobytes()), lambda: _scalars(self, data))


class _Buffers:
    """Constants by content. Buffer 0 is empty: the data of tensors that are computed."""

    def __init__(self) -> None:
        self.contents: list[Array] = [np.zeros(0, np.uint8)]
        self._known: dict[bytes, int] = {}

    def index(self, data: Array | None) -> int:
        if data is None:
            return 0
        content = data.tobytes()
        if content not in self._known:
            self._known[content] = len(self.contents)
            self.contents.append(np.frombuffer(content, np.uint8))
        return self._known[content]


def _table(b: flatbuffers.Builder, fields: Sequence[tuple[str, Any] | tuple[str, Any, int]]) -> int:
    """A table whose slot i holds ``fields[i]``: (kind, value) or (kind, value, default of the schema)."""
    b.StartObject(len(fields))
    for slot, (kind, value, *rest) in enumerate(fields):
        default = rest[0] if rest else 0
        if kind == "offset":
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        elif kind == "i8":
            b.PrependInt8Slot(slot, value, default)
        elif kind == "i32":
            b.PrependInt32Slot(slot, value, default)
        elif kind == "bool":
            b.PrependBoolSlot(slot, bool(value), bool(default))
        elif kind == "f32":
            b.PrependFloat32Slot(slot, value, default)
        else:
            {"u32": b.PrependUint32Slot, "u8": b.PrependUint8Slot}[kind](slot, value, default)
    return int(b.EndObject())


def _offsets(b: flatbuffers.Builder, items: Sequence[int]) -> int:
    b.StartVector(4, len(items), 4)
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    return int(b.EndVector())


def _scalars(b: flatbuffers.Builder, data: Array, alignment: int | None = None) -> int:
    """A vector of little-endian scalars; none at all (offset 0) for an aligned vector without content."""
    if alignment and not data.size:
        return 0
    content = data.tobytes()
    b.StartVector(data.itemsize, data.size, alignment or data.itemsize)
    b.head = b.head - len(content)
    b.Bytes[b.head : b.head + len(content)] = content
    return int(b.EndVector())


def _write_tensor(b: _Builder, tensor: Tensor, buffer: int) -> int:
    quantization = 0
    if tensor.scale is not None:
        scale = b.scalars(np.atleast_1d(tensor.scale).astype("<f4"))
        zeros = np.zeros(np.size(tensor.scale)) if tensor.zero_point is None else np.atleast_1d(tensor.zero_point)
        zero_point = b.scalars(zeros.astype("<i8"))
        values: list[tuple[str, int]] = [("offset", 0), ("offset", 0), ("offset", scale), ("offset", zero_point)]
        fields = [*values, ("u8", 0), ("offset", 0), ("i32", tensor.axis)]
        quantization = b.once(("quantization", scale, zero_point, tensor.axis), lambda: _table(b, fields))
    shape = b.scalars(np.array(tensor.shape, "<i4"))
    signature = b.scalars(np.array(tensor.signature, "<i4")) if tensor.signature else 0
    name = b.CreateString(tensor.name)
    entries = [("offset", shape), ("i8", int(tensor.kind)), ("u32", buffer), ("offset", name), ("offset", quantization)]
    if signature:
        entries += [("bool", 0), ("offset", 0), ("offset", signature)]
    return _table(b, entries)


def _write_signature(b: flatbuffers.Builder, signature: Signature) -> int:
    def tensors(names: dict[str, int]) -> int:
        entries = [(b.CreateString(name), index) for name, index in names.items()]
        return _offsets(b, [_table(b, [("offset", name), ("u32", index)]) for name, index in entries])

    inputs, outputs, key = tensors(signature.inputs), tensors(signature.outputs), b.CreateString(signature.key)
    return _table(b, [("offset", inputs), ("offset", outputs), ("offset", key), ("offset", 0), ("u32", 0)])


def _write_operator(b: _Builder, op: Operator, code: int) -> int:
    options_type, options, custom = 0, 0, 0
    if op.is_custom:
        # An operator without options has an empty vector, as in files of Larq's own converter.
        custom = b.scalars(np.frombuffer(op.custom_options, np.uint8))
    else:
        builtin = BUILTINS[op.name]
        options_type = builtin.options_type
        if options_type:
            given = [(kind, op.options.get(key, d), d) for key, kind, d in builtin.options]
            options = b.once(("options", *given), lambda: _table(b, given))
    inputs = b.scalars(np.array(op.inputs, "<i4"))
    outputs = b.scalars(np.array(op.outputs, "<i4"))
    tensors: list[tuple[str, int]] = [("offset", inputs), ("offset", outputs)]
    return _table(b, [("u32", code), *tensors, ("u8", options_type), ("offset", options), ("offset", custom)])


def _write_code(b: flatbuffers.Builder, name: str, version: int) -> int:
    builtin = BUILTINS.get(name)
    code = builtin.code if builtin else CUSTOM
    custom = 0 if builtin else b.CreateString(name)
    # The first field is the code of old readers; 127 sends them to the last one.
    return _table(b, [("i8", min(code, 127)), ("offset", custom), ("i32", version, 1), ("i32", code)])


# -- reading ----------------------------------------------------------------------------------------------------------


def from_bytes(data: bytes) -> Model:
    """Read a file of one subgraph, by whatever converter.

    An operator that is not among :data:`~bdnet_deploy.export.tflite.schema.BUILTINS` has its name and no options; a tensor of an element type that is not among TensorKind's is refused.

    Raises:
        ModelFileError: it is no TensorFlow Lite file, or damaged.
        UnsupportedError: it has several subgraphs, or tensors of other types, or data outside of its tables.
    """
    if data[4:8] != IDENTIFIER:
        raise ModelFileError("this is not a TensorFlow Lite file", why="the identifier TFL3 is missing")
    try:
        return _read_model(_View(data).root())
    except (struct.error, ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelFileError("the TensorFlow Lite file is damaged", why=str(error) or type(error).__name__) from error


class _View:
    """A table at ``position``. Every access is checked; errors are ValueError or struct.error."""

    def __init__(self, data: bytes, position: int = 0, budget: list[int] | None = None) -> None:
        self.data, self.position = data, position
        #: Bytes of names that may still be read, one number for the whole file.
        self.budget = [_NAMES_PER_BYTE * len(data)] if budget is None else budget

    def _unpack(self, fmt: str, position: int) -> Any:
        if position < 0:
            raise ValueError("an offset points before the file")
        return struct.unpack_from("<" + fmt, self.data, position)[0]

    def root(self) -> _View:
        return _View(self.data, self._unpack("I", 0), self.budget)

    def _field(self, slot: int) -> int:
        """Position of a field, 0 when absent."""
        table = self.position - self._unpack("i", self.position)
        size = self._unpack("H", table)
        relative = self._unpack("H", table + 4 + 2 * slot) if 4 + 2 * slot + 2 <= size else 0
        return self.position + relative if relative else 0

    def scalar(self, slot: int, fmt: str, default: int = 0) -> int:
        position = self._field(slot)
        return int(self._unpack(fmt, position)) if position else default

    def real(self, slot: int) -> float:
        position = self._field(slot)
        return float(self._unpack("f", position)) if position else 0.0

    def _target(self, slot: int) -> int:
        position = self._field(slot)
        return position + self._unpack("I", position) if position else 0

    def table(self, slot: int) -> _View | None:
        target = self._target(slot)
        return _View(self.data, target, self.budget) if target else None

    def vector(self, slot: int, dtype: str) -> Array:
        target, size = self._target(slot), np.dtype(dtype).itemsize
        if not target:
            return np.zeros(0, dtype)
        length = self._unpack("I", target)
        if length * size > len(self.data) - target - 4:
            raise ValueError("a vector is longer than the file")
        return np.frombuffer(self.data, dtype, length, target + 4)

    def tables(self, slot: int, read: Callable[[_View], _T]) -> list[_T]:
        offsets = self.vector(slot, "<u4")
        base = self._target(slot) + 4
        return [read(_View(self.data, base + 4 * i + int(o), self.budget)) for i, o in enumerate(offsets)]

    def string(self, slot: int) -> str:
        content = self.vector(slot, "u1")
        if content.size > _MAX_STRING:
            raise ValueError(f"a name of {content.size} bytes")
        self.budget[0] -= content.size
        if self.budget[0] < 0:
            raise ValueError("names that overlap")
        return content.tobytes().decode("utf-8")

    def ints(self, slot: int, limit: int = _MAX_OPERANDS) -> tuple[int, ...]:
        content = self.vector(slot, "<i4")
        if content.size > limit:
            raise ValueError(f"a list of {content.size} numbers where at most {limit} are possible")
        return tuple(int(v) for v in content)


def _read_model(root: _View) -> Model:
    if root.scalar(0, "I") != VERSION:
        raise ValueError(f"version {root.scalar(0, 'I')}, expected {VERSION}")
    codes = root.tables(1, _read_code)
    buffers = root.tables(4, _read_buffer)
    subgraphs = root.tables(2, lambda v: v)
    if len(subgraphs) != 1:
        raise UnsupportedError(
            f"the TensorFlow Lite file has {len(subgraphs)} subgraphs, and one is expected",
            why="further ones are branches, loops or several models in one file",
            fix="convert a model without control flow, one model a file",
        )
    graph = subgraphs[0]
    if root.vector(6, "<u4").size > _MAX_METADATA:
        raise ValueError("too many metadata entries")
    model = Model(
        tensors=graph.tables(0, lambda v: _read_tensor(v, buffers)),
        operators=graph.tables(3, lambda v: _read_operator(v, codes)),
        inputs=list(graph.ints(1)),
        outputs=list(graph.ints(2)),
        metadata=dict(root.tables(6, lambda v: (v.string(0), buffers[v.scalar(1, "I")].tobytes()))),
        description=root.string(3),
        signatures=_read_signatures(root),
    )
    used = [*model.inputs, *model.outputs, *(i for op in model.operators for i in op.outputs)]
    used += [i for s in model.signatures for names in (s.inputs, s.outputs) for i in names.values()]
    if any(not 0 <= i < len(model.tensors) for i in used) or any(
        not -1 <= i < len(model.tensors) for op in model.operators for i in op.inputs
    ):
        raise ValueError("an operator names a tensor that does not exist")
    return model


#: Element types that have no TensorKind.
_OTHER_KINDS = {5: "string", 8: "complex64", 10: "float64", 11: "complex128", 12: "uint64", 13: "resource"}
_OTHER_KINDS |= {14: "variant", 15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16", 19: "int2"}


def _read_code(view: _View) -> tuple[str, int]:
    code = max(view.scalar(0, "b"), view.scalar(3, "i"))
    name = view.string(1) if code == CUSTOM else _builtin_name(code)
    if code == CUSTOM and (name in BUILTINS or name in NAMES or name.startswith("BUILTIN_")):
        raise ValueError(f"a custom operator with the name of a built-in one, {name}")
    return name, view.scalar(2, "i", 1)


def _builtin_name(code: int) -> str:
    return NAMES[code] if 0 <= code < len(NAMES) else f"BUILTIN_{code}"


def _read_buffer(view: _View) -> Array:
    if view.scalar(2, "Q") > 1:
        raise UnsupportedError(
            "the constants of this TensorFlow Lite file lie behind its tables", why="as in files above 2 GB"
        )
    return view.vector(0, "u1")


def _read_signatures(root: _View) -> list[Signature]:
    def tensors(view: _View, slot: int) -> dict[str, int]:
        if view.vector(slot, "<u4").size > _MAX_OPERANDS:
            raise ValueError("too many names in a signature")
        return dict(view.tables(slot, lambda v: (v.string(0), v.scalar(1, "I"))))

    if root.vector(7, "<u4").size > _MAX_SIGNATURES:
        raise ValueError("too many signatures")
    return root.tables(7, lambda v: Signature(v.string(2), tensors(v, 0), tensors(v, 1)))


def _read_tensor(view: _View, buffers: list[Array]) -> Tensor:
    code = view.scalar(1, "b")
    if code not in set(TensorKind):
        raise UnsupportedError(
            f"a tensor has elements of type {_OTHER_KINDS.get(code, code)}, which cannot be imported",
            where=view.string(3),
        )
    kind = TensorKind(code)
    if view.table(6) is not None:
        raise UnsupportedError("a tensor is sparse", where=view.string(3), fix="convert the model without sparsity")
    shape = view.ints(0, _MAX_RANK)
    content = buffers[view.scalar(2, "I")]
    data = None
    if content.size:
        if min(shape, default=1) < 0:
            raise ValueError("a constant has a negative dimension")
        data = content.view(kind.numpy).reshape(shape)
    quantization = view.table(4)
    scale = quantization.vector(2, "<f4") if quantization else np.zeros(0, "<f4")
    zero_point = quantization.vector(3, "<i8") if quantization else np.zeros(0, "<i8")
    if scale.size and zero_point.size not in (0, scale.size):
        raise ValueError(f"{scale.size} scales and {zero_point.size} zero points")
    return Tensor(
        name=view.string(3),
        shape=shape,
        kind=kind,
        data=data,
        scale=scale if scale.size else None,
        axis=quantization.scalar(6, "i") if quantization else 0,
        zero_point=zero_point if scale.size and zero_point.any() else None,
        signature=view.ints(7, _MAX_RANK),
    )


def _read_operator(view: _View, codes: list[tuple[str, int]]) -> Operator:
    name, version = codes[view.scalar(0, "I")]
    op = Operator(name, view.ints(1), view.ints(2), version=version)
    if op.is_custom:
        op.custom_options = view.vector(5, "u1").tobytes()
        return op
    options = view.table(4)
    formats = {"i8": "b", "i32": "i", "bool": "?"}
    for slot, (key, kind, default) in enumerate(BUILTINS[name].options):
        if kind == "f32":
            op.options[key] = options.real(slot) if options else 0.0
        else:
            op.options[key] = options.scalar(slot, formats[kind], default) if options else default
    return op
