"""The ``.bdn`` file in Python: the mirror of ``runtime/src/bd_format.h``, a writer and a reader.

:func:`read` checks the container (header, checksum, records, sizes) and never believes a number of the file; whether
steps fit their kernels is for the C loader to say (:func:`bdnet_deploy.host.inspect`). ``docs/bdn-format.md`` describes
the format in words.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.bitplanes import pack, unpack, words
from bdnet_deploy.errors import ModelFileError

MAGIC = 0x314E4442
FORMAT_VERSION = 1
ALIGN = 16
NAME_BYTES = 32
NONE = 0xFFFF
"""No tensor, no kernel."""
ABSENT = 0xFFFFFFFF
"""No constant."""

RECORD_KERNELS = 1
RECORD_TENSORS = 2
RECORD_STEPS = 3
RECORD_CONSTANTS = 4
RECORD_TEST = 5
RECORD_IO = 6
RECORD_META = 7
RECORD_MAP = 8
RECORD_OPTIONAL = 1
"""Flag of a record that a reader may skip."""

MAX_IO = 32
"""Inputs, or outputs, of a model."""


class DType(IntEnum):
    """``bd_dtype``."""

    F32 = 0
    U8 = 1
    I8 = 2
    I16 = 3
    I32 = 4
    BIT = 5
    TRIT = 6
    UBIT = 7


class Place(IntEnum):
    ARENA = 0
    INPUT = 1
    OUTPUT = 2


class Kind(IntEnum):
    WINDOW = 0
    ACCUMULATE = 1
    WHOLE = 2


class Numerics(IntEnum):
    FLOAT = 0
    FIXED16 = 1
    FIXED8 = 2


def _struct(*members: str) -> np.dtype[Any]:
    """A packed little-endian structure from lines of a type and names; ``name:2`` is an array of two."""
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for line in members:
        kind, *names = line.split()
        for name in names:
            name, _, count = name.partition(":")
            fields.append((name, "<" + kind, (int(count),) if count else ()))
    return np.dtype(fields)


HEADER = _struct(
    "u4 magic crc32 file_size",
    "u2 format_version oldest_reader",
    "u4 model_version tensor_bytes scratch_bytes",
    "u2 inputs outputs",
    "u4 numerics reserved:7",
)
RECORD = _struct("u4 type size flags reserved")
TENSOR = _struct(
    "u4 offset row_stride",
    "u2 height width channels rows_held",
    "u1 dtype place order reserved0",
    "u4 ring reserved:2",
)
STEP = _struct(
    "u2 kernel epilogue in:2 out:2",
    "u2 out_height out_width out_channels groups",
    "u1 kernel_h kernel_w stride_h stride_w dilation_h dilation_w pad_top pad_left",
    "i1 pad_value",
    "u1 acc_dtype weight_planes kind",
    "u2 rows_per_call",
    "i2 zero_point",
    "u4 weights weights_size epilogue_at scratch",
    "u1 acc_order segment source:2",
)
#: Offsets of an epilogue's arrays, in their order in the structure.
EPILOGUE_ARRAYS = ("mul", "add", "residual_mul", "positive", "negative", "bias", "low", "high")
EPILOGUE = _struct(
    "u4 " + " ".join(EPILOGUE_ARRAYS),
    "i1 shift residual_shift",
    "u1 dtype reserved0",
    "u2 residual_channels repeats",
)
TEST_VECTOR = _struct("u4 kind input_bytes output_bytes seed output_crc32 reserved:3")

Structs = npt.NDArray[np.void]

_ELEMENT = {DType.F32: "<f4", DType.U8: "u1", DType.I8: "i1", DType.I16: "<i2", DType.I32: "<i4"}
_REQUIRED = {
    RECORD_KERNELS: "kernels",
    RECORD_TENSORS: "tensors",
    RECORD_STEPS: "steps",
    RECORD_CONSTANTS: "constants",
}


def align(size: int, to: int = ALIGN) -> int:
    """The next multiple of ``to``."""
    return -(-size // to) * to


def element_dtype(dtype: int) -> np.dtype[Any] | None:
    """The numpy dtype of an element, None where elements are packed."""
    code = _ELEMENT.get(DType(dtype))
    return None if code is None else np.dtype(code)


def row_bytes(width: int, channels: int, dtype: int) -> int:
    """Bytes of one dense row of a feature map."""
    element = element_dtype(dtype)
    if element is None:
        return width * words(channels) * 4 * (2 if dtype == DType.TRIT else 1)
    return width * channels * element.itemsize


def accumulator_bytes(width: int, channels: int, dtype: int, rows: int) -> int:
    """Scratch that ``rows`` rows of accumulators take in front of the kernel's own scratch."""
    return align(align(row_bytes(width, channels, dtype), 4) * rows)


def kernel_scratch(
    kernel: str,
    *,
    channels: int,
    groups: int,
    window: tuple[int, int],
    width: int = 1,
    outputs: int = 1,
    stride: int = 1,
) -> int:
    """Scratch that a kernel needs for itself behind the accumulators, in bytes.

    The generic convolutions gather the window of one pixel and group: packed words of every plane, or 4-byte elements.
    Products of maps with elements gather the channels of one pixel, softmax holds those of one pixel. A ``__tile16``
    convolution holds the rows of a window with their padding, and addends (``runtime/kernels/bd_tile16.h``), a
    ``__lut7`` one the tables of its first channels, a word for each of these, where it packs bits the counts of 7 pixels, and the
    windows of 7 pixels if they have more taps than one (``runtime/kernels/bd_lut7.h``). A ``__forms3`` one holds forms of columns,
    sums and a row of bytes, of 32 channels (``runtime/kernels/bd_forms3.h``).

    Args:
        kernel: its name.
        channels: of the input.
        groups: of the convolution.
        window: kernel height and width.
        width, outputs: of the output.
        stride: of the columns.
    """
    if kernel.endswith("__tile16"):
        row = 0 if window[0] == 1 else align(((width - 1) * stride + window[1]) * (channels // 8))
        return 3 * row + 8 * outputs
    if kernel.endswith("__lut7"):
        taps = window[0] * window[1]
        each = 8 if channels <= 8 else 16 if channels <= 16 else 32 * words(channels)
        whole = channels if taps == 1 else taps * each
        slab = next((n for limit, n in ((48, 64), (16, 32), (8, 16)) if whole > limit), 8)
        counts, windows = 14 * outputs if "_bit__" in kernel else 0, 0 if taps == 1 else 28 * words(whole)
        return 4 * ((14 if slab >= 32 else 4) * slab + slab) + counts + windows
    if kernel.endswith(("__forms3", "__forms3n")):
        merged = -(-width * channels // 32) if channels in (8, 16) else 0
        return 24 * ((width - 1) * stride + 3) + 48 * width + 36 * merged
    if kernel.startswith("bd_softmax_") and kernel != "bd_softmax_f32":
        return align(2 * channels, 4)
    if kernel.startswith("bd_matmul_"):
        return 0 if set(kernel.split("_")[2]) <= set("btz") else 4 * channels
    if not kernel.startswith("bd_conv_"):
        return 0
    pair, taps = kernel.split("_")[2], window[0] * window[1]
    if pair[1] in "bt":
        return taps * (2 if pair[0] == "t" else 1) * words(channels // groups) * 4
    return taps * (channels // groups) * 4


def pack_map(values: npt.NDArray[Any], dtype: int, row_stride: int | None = None) -> bytes:
    """The bytes of a feature map as the runtime holds it.

    Args:
        values: (H, W, C) numbers; bits as -1/+1, trits as -1/0/+1, ubits as 0/1.
        dtype: a :class:`DType`.
        row_stride: bytes from row to row; dense when None.
    """
    height, width, channels = values.shape
    element = element_dtype(dtype)
    if element is not None:
        rows = np.ascontiguousarray(values, element).view(np.uint8).reshape(height, -1)
    else:
        signs = 2 * values - 1 if dtype == DType.UBIT else values
        packed = pack(signs, planes=2 if dtype == DType.TRIT else 1)  # (H, W, planes, words)
        rows = np.ascontiguousarray(packed.swapaxes(1, 2)).view(np.uint8).reshape(height, -1)
    dense = row_bytes(width, channels, dtype)
    padded = np.zeros((height, dense if row_stride is None else row_stride), np.uint8)
    padded[:, :dense] = rows
    return padded.tobytes()


def unpack_map(data: bytes | memoryview, shape: tuple[int, int, int], dtype: int, row_stride: int) -> npt.NDArray[Any]:
    """The numbers (H, W, C) of a feature map in the runtime's memory; packed ones as int8."""
    height, width, channels = shape
    rows = np.frombuffer(data, np.uint8, height * row_stride).reshape(height, row_stride)
    dense = np.ascontiguousarray(rows[:, : row_bytes(width, channels, dtype)])
    element = element_dtype(dtype)
    if element is not None:
        return dense.view(element).reshape(shape)
    planes = 2 if dtype == DType.TRIT else 1
    packed = dense.view("<u4").reshape(height, planes, width, words(channels))
    values = unpack(packed.swapaxes(1, 2), channels)
    return (values + 1) // 2 if dtype == DType.UBIT else values


def test_input(seed: int, shape: tuple[int, ...], dtype: int) -> npt.NDArray[Any]:
    """The generated input of a test vector of kind 1 (``bd_test_vector``).

    Args:
        seed: start of the xorshift generator, not 0.
        shape: of the result.
        dtype: an unpacked :class:`DType`.
    """
    element = element_dtype(dtype)
    if element is None:
        raise ValueError("packed inputs have no generator")
    count = int(np.prod(shape, dtype=np.int64)) * (1 if dtype == DType.F32 else element.itemsize)
    state = seed & 0xFFFFFFFF
    stream = bytearray(count)
    for i in range(count):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        stream[i] = state >> 24
    if dtype == DType.F32:
        return (np.frombuffer(bytes(stream), np.int8).astype(np.float32) / np.float32(64)).reshape(shape)
    return np.frombuffer(bytes(stream), element).reshape(shape)


def test_record(inputs: npt.NDArray[Any] | int, input_bytes: int, output: bytes) -> bytes:
    """Payload of :data:`RECORD_TEST`.

    Args:
        inputs: the literal input, or the seed of :func:`test_input`.
        input_bytes: size of the input.
        output: the expected output's bytes.
    """
    head = np.zeros((), TEST_VECTOR)
    head["input_bytes"], head["output_bytes"] = input_bytes, len(output)
    head["output_crc32"] = zlib.crc32(output)
    if isinstance(inputs, int):
        head["kind"], head["seed"] = 1, inputs
        return head.tobytes()
    return head.tobytes() + inputs.tobytes() + output


@dataclass(frozen=True, eq=False)
class BdnFile:
    """A parsed file. ``tensors`` and ``steps`` are arrays of :data:`TENSOR` and :data:`STEP`."""

    data: bytes
    header: np.void
    kernels: list[str]
    tensors: Structs
    steps: Structs
    constants: bytes
    records: dict[int, bytes] = field(default_factory=dict)
    """Payloads of the optional records, by type."""

    def tensor_at(self, place: Place, index: int) -> int:
        """Position in ``tensors`` of input or output ``index``."""
        found = np.flatnonzero((self.tensors["place"] == place) & (self.tensors["offset"] == index))
        if found.size != 1:
            raise ModelFileError(f"the model has no {place.name.lower()} {index}")
        return int(found[0])

    def epilogue(self, step: int) -> np.void | None:
        """The :data:`EPILOGUE` of a step, or None.

        Raises:
            ModelFileError: when the step points outside the constants.
        """
        at = int(self.steps[step]["epilogue_at"])
        if at == ABSENT:
            return None
        if at + EPILOGUE.itemsize > len(self.constants):
            raise ModelFileError(f"step {step} has its epilogue outside the constants", fix="export the model again")
        return np.frombuffer(self.constants, EPILOGUE, 1, at)[0]

    @property
    def test_vector(self) -> np.void | None:
        record = self.records.get(RECORD_TEST)
        return None if record is None else np.frombuffer(record, TEST_VECTOR, 1)[0]


def write(
    *,
    kernels: Sequence[str],
    tensors: Structs,
    steps: Structs,
    constants: bytes,
    tensor_bytes: int,
    scratch_bytes: int,
    inputs: int,
    outputs: int,
    numerics: int = Numerics.FLOAT,
    model_version: int = 0,
    records: Mapping[int, bytes] | None = None,
) -> bytes:
    """The bytes of a ``.bdn`` file. Sizes, padding and the checksum are computed.

    Args:
        kernels: names that steps refer to by index.
        tensors: array of :data:`TENSOR`.
        steps: array of :data:`STEP`.
        constants: payload of the constants record.
        tensor_bytes: size of the arena's tensor area; rounded up to 16.
        scratch_bytes: largest scratch of a step; rounded up to 16.
        inputs, outputs: how many; their tensors bear the indices 0, 1, ...
        numerics: for information.
        model_version: the user's.
        records: optional records by type (:data:`RECORD_TEST` and on, or types of one's own above 8).
    """
    names = bytearray()
    for name in kernels:
        raw = name.encode("ascii")
        if not 0 < len(raw) < NAME_BYTES:
            raise ValueError(f"kernel name '{name}' is empty or longer than {NAME_BYTES - 1} characters")
        names += raw.ljust(NAME_BYTES, b"\0")
    payloads = {
        RECORD_KERNELS: bytes(names),
        RECORD_TENSORS: np.ascontiguousarray(tensors, TENSOR).tobytes(),
        RECORD_STEPS: np.ascontiguousarray(steps, STEP).tobytes(),
        RECORD_CONSTANTS: bytes(constants),
    }
    for kind, payload in (records or {}).items():
        if int(kind) in payloads or int(kind) < 1:
            raise ValueError(f"record type {int(kind)} is not optional")
        payloads[int(kind)] = bytes(payload)
    body = bytearray()
    for kind, payload in sorted(payloads.items()):
        head = np.zeros((), RECORD)
        head["type"], head["size"] = kind, len(payload)
        head["flags"] = RECORD_OPTIONAL if kind not in _REQUIRED else 0
        body += head.tobytes() + payload.ljust(align(len(payload)), b"\0")
    header = np.zeros((), HEADER)
    header["magic"] = MAGIC
    header["file_size"] = HEADER.itemsize + len(body)
    header["format_version"] = FORMAT_VERSION
    header["oldest_reader"] = FORMAT_VERSION
    header["model_version"] = model_version
    header["tensor_bytes"] = align(tensor_bytes)
    header["scratch_bytes"] = align(scratch_bytes)
    header["inputs"], header["outputs"] = inputs, outputs
    header["numerics"] = numerics
    return seal(header.tobytes() + bytes(body))


def seal(data: bytes) -> bytes:
    """The same file with the checksum that its bytes have."""
    return data[:4] + zlib.crc32(data[8:]).to_bytes(4, "little") + data[8:]


def read(data: bytes, *, where: str | None = None) -> BdnFile:
    """Parse a ``.bdn`` file.

    Args:
        data: the whole file; bytes behind the size that the header states are ignored.
        where: the file's name for messages.

    Raises:
        ModelFileError: when the bytes are not a complete, undamaged file that this version reads.
    """
    size = HEADER.itemsize
    if data[:4] != MAGIC.to_bytes(4, "little"):
        raise ModelFileError("not a .bdn file", where=where, why="it does not begin with 'BDN1'")
    if len(data) < size:
        raise ModelFileError("the file is truncated", where=where, why=f"{len(data)} bytes, a header has {size}")
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["format_version"] == 0 or header["oldest_reader"] > FORMAT_VERSION:
        raise ModelFileError(
            f"the file needs a reader of format version {header['oldest_reader']}",
            where=where,
            why=f"this is a reader of version {FORMAT_VERSION}",
            fix="pip install --upgrade bdnet-deploy",
        )
    end = int(header["file_size"])
    if end > len(data) or end < size or end % ALIGN:
        raise ModelFileError("the file is truncated", where=where, why=f"{len(data)} bytes of {end}")
    data = bytes(data[:end])
    if zlib.crc32(data[8:]) != header["crc32"]:
        raise _damaged("the checksum differs", where)
    payloads = _records(data, where)
    names = [payloads[RECORD_KERNELS][i : i + NAME_BYTES] for i in range(0, len(payloads[RECORD_KERNELS]), NAME_BYTES)]
    if any(not name.isascii() or name[:1] == b"\0" or name[-1:] != b"\0" for name in names):
        raise _damaged("a kernel's name is not a name", where)
    return BdnFile(
        data=data,
        header=header,
        kernels=[name.split(b"\0", 1)[0].decode("ascii") for name in names],
        tensors=np.frombuffer(payloads[RECORD_TENSORS], TENSOR),
        steps=np.frombuffer(payloads[RECORD_STEPS], STEP),
        constants=payloads[RECORD_CONSTANTS],
        records={kind: payload for kind, payload in payloads.items() if kind not in _REQUIRED},
    )


def _damaged(why: str, where: str | None) -> ModelFileError:
    return ModelFileError("the file is damaged", where=where, why=why, fix="copy or export it again")


def _records(data: bytes, where: str | None) -> dict[int, bytes]:
    payloads: dict[int, bytes] = {}
    at, previous = HEADER.itemsize, 0
    while at < len(data):
        record = np.frombuffer(data, RECORD, 1, at)[0]
        kind, size = int(record["type"]), int(record["size"])
        at += RECORD.itemsize
        if at + align(size) > len(data):
            raise _damaged(f"record {kind} ends behind the file", where)
        if kind <= previous:
            raise _damaged(f"record {kind} is repeated or misplaced", where)
        if kind > RECORD_MAP and not record["flags"] & RECORD_OPTIONAL:
            raise ModelFileError(
                f"the file has a record of type {kind} that this version does not know",
                where=where,
                fix="pip install --upgrade bdnet-deploy",
            )
        payloads[kind] = data[at : at + size]
        previous = kind
        at += align(size)
    units = {RECORD_KERNELS: NAME_BYTES, RECORD_TENSORS: TENSOR.itemsize, RECORD_STEPS: STEP.itemsize}
    for kind, name in _REQUIRED.items():
        if kind not in payloads:
            raise _damaged(f"the record '{name}' is missing", where)
        unit = units.get(kind)
        if unit is not None:
            count, rest = divmod(len(payloads[kind]), unit)
            if rest or not 0 < count < NONE:
                raise _damaged(f"the record '{name}' has an impossible size", where)
    if RECORD_TEST in payloads:
        _check_test(payloads[RECORD_TEST], where)
    return payloads


def _check_test(payload: bytes, where: str | None) -> None:
    if len(payload) >= TEST_VECTOR.itemsize:
        head = np.frombuffer(payload, TEST_VECTOR, 1)[0]
        literal = int(head["input_bytes"]) + int(head["output_bytes"]) if head["kind"] == 0 else 0
        if head["kind"] <= 1 and len(payload) == TEST_VECTOR.itemsize + literal:
            return
    raise _damaged("the test vector has an impossible size", where)
