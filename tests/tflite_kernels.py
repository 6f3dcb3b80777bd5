"""Runs the runtime's TensorFlow Lite operators one by one in an interpreter made of ctypes: no TensorFlow is needed.

As a program it serves a copy of the library, given by BDNET_HOST_LIBRARY.
"""

from __future__ import annotations

import ctypes as C
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from bdnet_deploy.hostlib import host_library

OK = 0
NAMES = ("LceQuantize", "LceDequantize", "LceBconv2d", "LceBMaxPool2d", "BdDepthwiseConv2d")
#: TfLiteType by numpy kind and size.
TYPES = {"f4": 1, "i4": 2, "b1": 6, "i1": 9, "i8": 4}


class Quantization(C.Structure):
    _fields_ = [("type", C.c_int), ("params", C.c_void_p)]


class Tensor(C.Structure):
    """TfLiteTensor of tensorflow/lite/core/c/common.h."""

    _fields_ = [
        ("type", C.c_int),
        ("data", C.c_void_p),
        ("dims", C.POINTER(C.c_int)),
        ("scale", C.c_float),
        ("zero_point", C.c_int32),
        ("allocation_type", C.c_int),
        ("bytes", C.c_size_t),
        ("allocation", C.c_void_p),
        ("name", C.c_char_p),
        ("delegate", C.c_void_p),
        ("buffer_handle", C.c_int),
        ("data_is_stale", C.c_bool),
        ("is_variable", C.c_bool),
        ("quantization", Quantization),
        ("sparsity", C.c_void_p),
        ("dims_signature", C.c_void_p),
    ]


class Node(C.Structure):
    _fields_ = [
        ("inputs", C.POINTER(C.c_int)),
        ("outputs", C.POINTER(C.c_int)),
        ("intermediates", C.c_void_p),
        ("temporaries", C.c_void_p),
        ("user_data", C.c_void_p),
        ("builtin_data", C.c_void_p),
        ("custom_initial_data", C.c_void_p),
        ("custom_initial_data_size", C.c_int),
        ("delegate", C.c_void_p),
        ("might_have_side_effect", C.c_bool),
    ]


REPORT = C.CFUNCTYPE(None, C.c_void_p, C.c_char_p, C.c_char_p)
RESIZE = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Tensor), C.POINTER(C.c_int))


class Context(C.Structure):
    """TfLiteContext up to what operators use; a call of another function would crash."""

    _fields_ = [
        ("tensors_size", C.c_size_t),
        ("GetExecutionPlan", C.c_void_p),
        ("tensors", C.POINTER(Tensor)),
        ("impl", C.c_void_p),
        ("ResizeTensor", RESIZE),
        ("ReportError", REPORT),
        ("AddTensors", C.c_void_p),
        ("GetNodeAndRegistration", C.c_void_p),
        ("ReplaceNodeSubsetsWithDelegateKernels", C.c_void_p),
    ]


class Registration(C.Structure):
    _fields_ = [
        ("init", C.CFUNCTYPE(C.c_void_p, C.POINTER(Context), C.c_char_p, C.c_size_t)),
        ("free", C.CFUNCTYPE(None, C.POINTER(Context), C.c_void_p)),
        ("prepare", C.CFUNCTYPE(C.c_int, C.POINTER(Context), C.POINTER(Node))),
        ("invoke", C.CFUNCTYPE(C.c_int, C.POINTER(Context), C.POINTER(Node))),
    ]


@dataclass
class Out:
    """An output before it has a shape; LceDequantize wants ``shape``. ``constant``: as a hostile file may have it."""

    dtype: Any
    scale: float = 0.0
    zero_point: int = 0
    shape: tuple[int, ...] = ()
    constant: bool = False


@dataclass
class In:
    """An input with a quantization, or one that is no constant although its data is known."""

    data: np.ndarray
    scale: float = 0.0
    zero_point: int = 0


class RefusedError(Exception):
    """prepare or invoke returned an error; the message is what it reported."""


@functools.cache
def _library() -> C.CDLL:
    library = C.CDLL(str(host_library()))
    library.bdnet_tflite_name.restype = C.c_char_p
    library.bdnet_tflite_registration.restype = C.POINTER(Registration)
    return library


_free = C.CDLL(None).free
_free.restype = None


def registration(name: str) -> Registration:
    library = _library()
    names = [library.bdnet_tflite_name(i).decode() for i in range(library.bdnet_tflite_count())]
    return library.bdnet_tflite_registration(names.index(name)).contents  # type: ignore[no-any-return]


def _ints(values: Sequence[int]) -> Any:
    return (C.c_int * (len(values) + 1))(len(values), *values)


def run(
    name: str,
    inputs: Sequence[np.ndarray | In | None],
    outputs: Sequence[Out],
    options: Mapping[str, int] | bytes = b"",
    *,
    constants: Sequence[int] | None = None,
    indices: tuple[Sequence[int], Sequence[int]] | None = None,
) -> list[np.ndarray]:
    """The outputs of one node, whose inputs from the second on are constants (or those of ``constants``).

    Raises:
        RefusedError: the operator refused the node.
    """
    custom = options if isinstance(options, bytes) else bytes(flexbuffers.Dumps(dict(options)))
    given = [i if isinstance(i, In) or i is None else In(i) for i in inputs]
    present = [i for i in given if i is not None]
    tensors = (Tensor * (len(present) + len(outputs)))()
    keep: list[Any] = []
    for n, (t, i) in enumerate(zip(tensors, present)):
        data = np.ascontiguousarray(i.data)
        t.type, t.data, t.bytes = TYPES[data.dtype.str[1:]], data.ctypes.data, data.nbytes
        position = next(k for k, g in enumerate(given) if g is i)
        constant = position > 0 if constants is None else position in constants
        t.scale, t.zero_point, t.allocation_type = i.scale, i.zero_point, 1 if constant else 2
        keep += [data, _ints(data.shape)]
        t.dims = C.cast(keep[-1], C.POINTER(C.c_int))
        del n
    results: dict[int, np.ndarray] = {}
    for k, o in enumerate(outputs):
        t = tensors[len(present) + k]
        t.type, t.scale, t.zero_point = TYPES[np.dtype(o.dtype).str[1:]], o.scale, o.zero_point
        t.allocation_type = 1 if o.constant else 2
        keep.append(_ints(o.shape))
        t.dims = C.cast(keep[-1], C.POINTER(C.c_int))
        if o.shape:
            results[k] = np.full(o.shape, 77, o.dtype)
            t.data, t.bytes = results[k].ctypes.data, results[k].nbytes
    messages: list[str] = []

    def report(_: int, form: bytes, text: bytes) -> None:
        assert form == b"%s"
        messages.append(text.decode())

    def resize(_: int, tensor: Any, array: Any) -> int:
        shape = array[1 : array[0] + 1]
        _free(array)
        k = (C.addressof(tensor.contents) - C.addressof(tensors)) // C.sizeof(Tensor) - len(present)
        size = tuple(shape)
        # The bytes behind are looked at after the run.
        whole = np.full(int(np.prod(size)) + 16, 77, outputs[k].dtype)
        keep.extend([whole, _ints(size)])
        results[k] = whole
        tensor.contents.data, tensor.contents.bytes = whole.ctypes.data, whole.nbytes - 16 * whole.itemsize
        tensor.contents.dims = C.cast(keep[-1], C.POINTER(C.c_int))
        keep.append(size)
        sizes[k] = size
        return OK

    sizes: dict[int, tuple[int, ...]] = {}
    context = Context(tensors_size=len(tensors), tensors=tensors, ReportError=REPORT(report))
    context.ResizeTensor = RESIZE(resize)
    numbers = iter(range(len(present)))
    ins = [-1 if g is None else next(numbers) for g in given]
    outs = [len(present) + k for k in range(len(outputs))]
    if indices is not None:
        ins, outs = list(indices[0]), list(indices[1])
    node = Node()
    keep += [_ints(ins), _ints(outs)]
    node.inputs, node.outputs = (C.cast(a, C.POINTER(C.c_int)) for a in keep[-2:])
    kernel = registration(name)
    state = kernel.init(context, custom, len(custom))
    node.user_data = state
    try:
        # Twice, as after a resize.
        if any(f(context, node) != OK for f in (kernel.prepare, kernel.prepare, kernel.invoke)):
            raise RefusedError("; ".join(messages) or "without a message")
    finally:
        kernel.free(context, state)
    for k, size in sizes.items():
        whole = results[k]
        assert np.all(whole[-16:] == 77), "wrote behind its output"
        results[k] = whole[:-16].reshape(size)
    return [results[k] for k in range(len(outputs))]
