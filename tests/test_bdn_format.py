"""The ``.bdn`` file: layout, writer, reader, and what the C loader refuses."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bdn_cases import Bdn, digits_like, draw
from hypothesis import given
from hypothesis import strategies as st

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy import host
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.graph import DType
from bdnet_deploy.hostlib import host_library

GOOD = digits_like().write()


def c_status(data: bytes) -> str:
    """What ``bd_inspect`` says."""
    try:
        host.inspect(data)
    except ModelFileError as error:
        return str(error.why)
    return "BD_OK"


# -- layout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [
        ("header", bdn.HEADER, 64),
        ("record", bdn.RECORD, 16),
        ("tensor", bdn.TENSOR, 32),
        ("step", bdn.STEP, 56),
        ("epilogue", bdn.EPILOGUE, 40),
        ("test_vector", bdn.TEST_VECTOR, 32),
    ],
)
def test_mirrors_the_c_structures(root: Path, name: str, dtype: np.dtype[Any], size: int) -> None:
    """Same members in the same order and of the same width as in bd_format.h."""
    source = (root / "runtime/src/bd_format.h").read_text(encoding="utf-8")
    body = re.search(rf"typedef struct bd_{name} \{{(.*?)\}} bd_{name};", source, re.DOTALL)
    assert body
    widths = {"uint32_t": 4, "uint16_t": 2, "uint8_t": 1, "int16_t": 2, "int8_t": 1}
    members = []
    for kind, names in re.findall(r"(u?int\d+_t) ([^;]*);", re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL)):
        for member in names.split(","):
            found = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?\s*", member)
            assert found
            members.append((found[1], widths[kind] * int(found[2] or 1), kind.startswith("int")))
    mirrored = [(field, dtype[field].itemsize, dtype[field].base.kind == "i") for field in (dtype.names or ())]
    assert members == mirrored
    assert dtype.itemsize == size


def test_constants_match_the_header(root: Path) -> None:
    source = (root / "runtime/src/bd_format.h").read_text(encoding="utf-8")
    for name in ("KERNELS", "TENSORS", "STEPS", "CONSTANTS", "TEST", "IO", "META", "MAP"):
        found = re.search(rf"BD_RECORD_{name} = (\d+)", source)
        assert found and int(found[1]) == getattr(bdn, f"RECORD_{name}")
    public = (root / "runtime/include/bdnet.h").read_text(encoding="utf-8")
    for member in bdn.DType:
        found = re.search(rf"BD_{member.name} = (\d+)", public)
        assert found and int(found[1]) == member


# -- writing and reading ----------------------------------------------------------------------------------------


def test_round_trip() -> None:
    b = digits_like()
    b.records = {bdn.RECORD_META: b'{"a":1}', 1000: b"mine"}
    data = b.write()
    file = bdn.read(data)
    assert file.kernels == b.kernels
    assert file.tensors.tobytes() == np.array(b.tensors, bdn.TENSOR).tobytes()
    assert file.steps.tobytes() == np.array(b.steps, bdn.STEP).tobytes()
    assert file.constants == bytes(b.constants)
    assert file.records == b.records
    assert len(data) % 16 == 0
    assert b.write() == data
    assert c_status(data) == "BD_OK"
    assert bdn.read(data + b"behind").data == data
    info = host.inspect(data)
    assert (info.inputs, info.outputs, info.steps) == (1, 1, 3)


@pytest.mark.parametrize("dtype", [DType.BIT, DType.TRIT, DType.I8, DType.I16, DType.F32])
def test_maps_round_trip(dtype: DType) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (2, 3, 31), (3, 2, 32), (1, 4, 65)):
        code = bdn.DType[dtype.name]
        x = draw(rng, shape, dtype)
        stride = bdn.align(bdn.row_bytes(shape[1], shape[2], code), 4) + 8
        packed = bdn.pack_map(x, code, stride)
        assert len(packed) == shape[0] * stride
        np.testing.assert_array_equal(bdn.unpack_map(packed, shape, code, stride), x)


def test_packing_by_hand() -> None:
    """A bit of 1 is -1; a trit's planes are a <= b: +1 is (0,0), 0 is (0,1), -1 is (1,1); tail bits are 0."""
    x = np.array([[[1, 0, -1, 1]]], np.int8)
    assert bdn.pack_map(x, bdn.DType.TRIT) == bytes([0b0100, 0, 0, 0, 0b0110, 0, 0, 0])
    assert bdn.pack_map(np.where(x < 0, -1, 1), bdn.DType.BIT) == bytes([0b0100, 0, 0, 0])


@given(st.binary(max_size=300))
def test_reader_survives_anything(data: bytes) -> None:
    with pytest.raises(ModelFileError):
        bdn.read(data)


@given(st.lists(st.tuples(st.integers(8, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_reader_survives_sealed_mutations(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    try:
        file = bdn.read(bdn.seal(bytes(data)))
        for step in range(len(file.steps)):
            file.epilogue(step)
    except ModelFileError:
        pass


def test_truncation_everywhere() -> None:
    for size in range(0, len(GOOD), 16):
        with pytest.raises(ModelFileError):
            bdn.read(GOOD[:size])
        assert c_status(GOOD[:size]) == "BD_ERROR_TRUNCATED"


def test_every_flipped_bit_is_noticed() -> None:
    for at in range(0, len(GOOD), 7):
        data = bytearray(GOOD)
        data[at] ^= 1 << at % 8
        with pytest.raises(ModelFileError):
            bdn.read(bytes(data))
        assert c_status(bytes(data)) != "BD_OK"


# -- what the loader refuses ------------------------------------------------------------------------------------


def header(field: str, value: int) -> Callable[[Bdn], bytes]:
    def change(b: Bdn) -> bytes:
        data = b.write()
        head = np.frombuffer(data, bdn.HEADER, 1).copy()
        head[field] = value
        return bdn.seal(head.tobytes() + data[bdn.HEADER.itemsize :])

    return change


def tensor(index: int, **fields: int) -> Callable[[Bdn], bytes]:
    def change(b: Bdn) -> bytes:
        for field, value in fields.items():
            b.tensors[index][field] = value
        return b.write()

    return change


def step(index: int, **fields: Any) -> Callable[[Bdn], bytes]:
    def change(b: Bdn) -> bytes:
        for field, value in fields.items():
            b.steps[index][field] = value
        return b.write()

    return change


def epilogue(index: int, **fields: int) -> Callable[[Bdn], bytes]:
    def change(b: Bdn) -> bytes:
        at = int(b.steps[index]["epilogue_at"])
        record = np.frombuffer(bytes(b.constants), bdn.EPILOGUE, 1, at).copy()
        for field, value in fields.items():
            record[field] = value
        b.constants[at : at + bdn.EPILOGUE.itemsize] = record.tobytes()
        return b.write()

    return change


def record(at: int, field: str, value: int) -> Callable[[Bdn], bytes]:
    """Changes the ``at``-th record's head."""

    def change(b: Bdn) -> bytes:
        data = bytearray(b.write())
        where = bdn.HEADER.itemsize
        for _ in range(at):
            where += bdn.RECORD.itemsize + bdn.align(int(np.frombuffer(data, bdn.RECORD, 1, where)[0]["size"]))
        head = np.frombuffer(bytes(data), bdn.RECORD, 1, where).copy()
        head[field] = value
        data[where : where + bdn.RECORD.itemsize] = head.tobytes()
        return bdn.seal(bytes(data))

    return change


def with_record(kind: int, payload: bytes) -> Callable[[Bdn], bytes]:
    def change(b: Bdn) -> bytes:
        b.records[kind] = payload
        return b.write()

    return change


def kernel_name(index: int, raw: bytes) -> Callable[[Bdn], bytes]:
    def change(b: Bdn) -> bytes:
        data = bytearray(b.write())
        at = bdn.HEADER.itemsize + bdn.RECORD.itemsize + index * bdn.NAME_BYTES
        data[at : at + bdn.NAME_BYTES] = raw.ljust(bdn.NAME_BYTES, b"\0")
        return bdn.seal(bytes(data))

    return change


def unsealed(b: Bdn) -> bytes:
    data = bytearray(b.write())
    data[-1] ^= 1
    return bytes(data)


TEST_HEAD = np.zeros(1, bdn.TEST_VECTOR)
REFUSED = [
    (header("magic", 1), "BD_ERROR_MAGIC"),
    (header("format_version", 0), "BD_ERROR_VERSION"),
    (header("oldest_reader", 2), "BD_ERROR_VERSION"),
    (header("file_size", 1 << 31), "BD_ERROR_TRUNCATED"),
    (header("file_size", 48), "BD_ERROR_TRUNCATED"),
    (header("file_size", 72), "BD_ERROR_TRUNCATED"),
    (unsealed, "BD_ERROR_CRC"),
    (header("tensor_bytes", 16), "BD_ERROR_TENSOR"),
    (header("tensor_bytes", 100001), "BD_ERROR_TENSOR"),
    (header("tensor_bytes", 0xFFFFFFF0), "BD_ERROR_TENSOR"),
    (header("scratch_bytes", 16), "BD_ERROR_STEP"),
    (header("scratch_bytes", 100001), "BD_ERROR_STEP"),
    (header("inputs", 0), "BD_ERROR_TENSOR"),
    (header("inputs", 2), "BD_ERROR_TENSOR"),
    (header("outputs", 33), "BD_ERROR_TENSOR"),
    (record(0, "type", 2), "BD_ERROR_RECORD"),
    (record(1, "type", 0), "BD_ERROR_RECORD"),
    (record(3, "type", 9), "BD_ERROR_RECORD"),
    (record(0, "size", 0), "BD_ERROR_RECORD"),
    (record(0, "size", 33), "BD_ERROR_RECORD"),
    (record(1, "size", 33), "BD_ERROR_RECORD"),
    (record(2, "size", 55), "BD_ERROR_RECORD"),
    (record(3, "size", 0xFFFFFFFF), "BD_ERROR_RECORD"),
    (record(3, "size", 0xFFFFFFF1), "BD_ERROR_RECORD"),
    (record(3, "size", 0), "BD_ERROR_RECORD"),
    (with_record(bdn.RECORD_TEST, b"short"), "BD_ERROR_RECORD"),
    (with_record(bdn.RECORD_TEST, TEST_HEAD.tobytes()), "BD_ERROR_RECORD"),
    (with_record(bdn.RECORD_TEST, TEST_HEAD.tobytes() + b"x"), "BD_ERROR_RECORD"),
    (kernel_name(0, b"bd_conv_bb_i99"), "BD_ERROR_KERNEL"),
    (kernel_name(0, b"x" * 32), "BD_ERROR_RECORD"),
    (kernel_name(0, b""), "BD_ERROR_RECORD"),
    (tensor(1, dtype=8), "BD_ERROR_TENSOR"),
    (tensor(1, dtype=255), "BD_ERROR_TENSOR"),
    (tensor(1, place=3), "BD_ERROR_TENSOR"),
    (tensor(1, height=0), "BD_ERROR_TENSOR"),
    (tensor(1, width=0), "BD_ERROR_TENSOR"),
    (tensor(1, channels=0), "BD_ERROR_TENSOR"),
    (tensor(1, height=0xFFFF, rows_held=0xFFFF), "BD_ERROR_TENSOR"),
    (tensor(1, height=0xFFFF, width=0xFFFF, channels=0xFFFF), "BD_ERROR_TENSOR"),
    (tensor(1, rows_held=0), "BD_ERROR_TENSOR"),
    (tensor(1, rows_held=3), "BD_ERROR_STEP"),  # a ring outside a segment
    (tensor(1, row_stride=0), "BD_ERROR_TENSOR"),
    (tensor(1, row_stride=97), "BD_ERROR_TENSOR"),
    (tensor(1, row_stride=0xFFFFFFFC), "BD_ERROR_TENSOR"),
    (tensor(1, offset=8), "BD_ERROR_TENSOR"),
    (tensor(1, offset=0xFFFFFFF0), "BD_ERROR_TENSOR"),
    (tensor(0, offset=1), "BD_ERROR_TENSOR"),
    (tensor(0, place=2), "BD_ERROR_TENSOR"),
    (tensor(0, height=0xFFFF, rows_held=0xFFFF, width=0xFFFF, channels=32, row_stride=0xFFFF * 4), "BD_ERROR_TENSOR"),
    (tensor(3, row_stride=164), "BD_ERROR_TENSOR"),
    (tensor(1, order=1), "BD_ERROR_STEP"),
    (step(0, kernel=9), "BD_ERROR_STEP"),
    (step(0, epilogue=9), "BD_ERROR_STEP"),
    (step(0, epilogue=bdn.NONE), "BD_ERROR_STEP"),
    (step(0, kernel=bdn.NONE), "BD_ERROR_STEP"),
    (step(2, kernel=bdn.NONE), "BD_ERROR_STEP"),
    (step(0, **{"in": (9, bdn.NONE)}), "BD_ERROR_STEP"),
    (step(0, **{"in": (bdn.NONE, bdn.NONE)}), "BD_ERROR_STEP"),
    (step(0, **{"in": (2, bdn.NONE)}), "BD_ERROR_STEP"),
    (step(0, **{"in": (0, 2)}), "BD_ERROR_STEP"),
    (step(1, **{"in": (1, bdn.NONE)}), "BD_ERROR_STEP"),
    (step(1, **{"in": (1, 0)}), "BD_ERROR_STEP"),
    (step(0, out=(9, 1)), "BD_ERROR_STEP"),
    (step(0, out=(bdn.NONE, bdn.NONE)), "BD_ERROR_STEP"),
    (step(0, out=(0, 1)), "BD_ERROR_STEP"),
    (step(0, out=(1, 1)), "BD_ERROR_STEP"),
    (step(0, out=(2, 2)), "BD_ERROR_STEP"),
    (step(0, out=(3, 1)), "BD_ERROR_STEP"),
    (step(0, out_height=0), "BD_ERROR_STEP"),
    (step(0, out_height=7), "BD_ERROR_STEP"),
    (step(0, out_width=0xFFFF, out_channels=0xFFFF, rows_per_call=0xFFFF, out_height=0xFFFF), "BD_ERROR_STEP"),
    (step(0, out_channels=41), "BD_ERROR_STEP"),
    (step(0, groups=0), "BD_ERROR_STEP"),
    (step(0, groups=3), "BD_ERROR_STEP"),
    (step(0, kernel_h=0), "BD_ERROR_STEP"),
    (step(0, kernel_w=255), "BD_ERROR_STEP"),
    (step(0, stride_h=0), "BD_ERROR_STEP"),
    (step(0, dilation_w=0), "BD_ERROR_STEP"),
    (step(0, pad_value=3), "BD_ERROR_STEP"),
    (step(0, acc_dtype=5), "BD_ERROR_STEP"),
    (step(0, acc_dtype=4), "BD_ERROR_STEP"),
    (step(0, weight_planes=2), "BD_ERROR_STEP"),
    (step(0, kind=1), "BD_ERROR_STEP"),
    (step(0, kind=2), "BD_ERROR_STEP"),
    (step(0, kind=3), "BD_ERROR_STEP"),
    (step(2, kind=0), "BD_ERROR_STEP"),
    (step(0, rows_per_call=0), "BD_ERROR_STEP"),
    (step(0, rows_per_call=6), "BD_ERROR_STEP"),
    (step(0, weights=bdn.ABSENT), "BD_ERROR_STEP"),
    (step(0, weights=bdn.ABSENT, weights_size=0), "BD_ERROR_STEP"),
    (step(0, weights=8), "BD_ERROR_STEP"),
    (step(0, weights=0xFFFFFFE0), "BD_ERROR_STEP"),
    (step(0, weights_size=0xFFFFFFFF), "BD_ERROR_STEP"),
    (step(0, weights_size=1436), "BD_ERROR_STEP"),
    (step(0, epilogue_at=bdn.ABSENT), "BD_ERROR_STEP"),
    (step(0, epilogue_at=0xFFFFFFF0), "BD_ERROR_STEP"),
    (step(0, epilogue_at=4), "BD_ERROR_STEP"),
    (step(2, epilogue_at=0), "BD_ERROR_STEP"),
    (step(0, scratch=0), "BD_ERROR_STEP"),
    (step(0, scratch=0xFFFFFFFF), "BD_ERROR_STEP"),
    (epilogue(0, mul=bdn.ABSENT), "BD_ERROR_STEP"),
    (epilogue(0, add=bdn.ABSENT), "BD_ERROR_STEP"),
    (epilogue(0, mul=0xFFFFFFFC), "BD_ERROR_STEP"),
    (epilogue(0, mul=2), "BD_ERROR_STEP"),
    (epilogue(0, low=bdn.ABSENT), "BD_ERROR_STEP"),
    (epilogue(0, high=bdn.ABSENT), "BD_ERROR_STEP"),
    (epilogue(0, positive=0), "BD_ERROR_STEP"),
    (epilogue(0, residual_mul=0), "BD_ERROR_STEP"),
    (epilogue(0, bias=0), "BD_ERROR_STEP"),
    (epilogue(0, shift=127), "BD_ERROR_STEP"),
    (epilogue(0, shift=-32), "BD_ERROR_STEP"),
    (epilogue(0, dtype=int(bdn.DType.I8)), "BD_ERROR_STEP"),
    (epilogue(1, residual_channels=0), "BD_ERROR_STEP"),
    (epilogue(1, residual_channels=41), "BD_ERROR_STEP"),
    (epilogue(1, residual_mul=bdn.ABSENT), "BD_ERROR_STEP"),
    (epilogue(1, negative=bdn.ABSENT), "BD_ERROR_STEP"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_loader_refuses(case: int) -> None:
    change, status = REFUSED[case]
    assert c_status(change(digits_like())) == status


def test_missing_record() -> None:
    good = bdn.read(GOOD)
    at = len(GOOD) - bdn.align(len(good.constants)) - bdn.RECORD.itemsize
    cut = bytearray(GOOD[:at])
    cut[8:12] = len(cut).to_bytes(4, "little")
    data = bdn.seal(bytes(cut))
    assert c_status(data) == "BD_ERROR_RECORD"
    with pytest.raises(ModelFileError, match="constants"):
        bdn.read(data)


def test_missing_kernel_is_named() -> None:
    data = kernel_name(0, b"bd_conv_bb_i99")(digits_like())
    with pytest.raises(ModelFileError, match="bd_conv_bb_i99"):
        host.inspect(data)


def test_unknown_records() -> None:
    """Skipped when optional, refused when not."""
    b = digits_like()
    b.records[77] = b"from the future"
    data = b.write()
    assert c_status(data) == "BD_OK"
    required = record(4, "flags", 0)(b)
    assert c_status(required) == "BD_ERROR_RECORD"
    with pytest.raises(ModelFileError, match="77"):
        bdn.read(required)


# -- memory -----------------------------------------------------------------------------------------------------


class Memory:
    """Bytes of given alignment between guards."""

    def __init__(self, size: int, offset: int = 0, content: bytes = b"") -> None:
        self.raw = np.full(size + 128, 0xA5, np.uint8)
        self.start = 32 + (-self.raw.ctypes.data % 16) + offset
        self.size = size
        self.raw[self.start : self.start + len(content)] = np.frombuffer(content, np.uint8)

    @property
    def address(self) -> int:
        return int(self.raw.ctypes.data) + self.start

    def guards_intact(self) -> bool:
        outside = np.concatenate([self.raw[: self.start], self.raw[self.start + self.size :]])
        return bool((outside == 0xA5).all())


def load(arena: Memory, size: int, model: Memory) -> tuple[str, ctypes.c_void_p]:
    lib, context = host._library(host_library()), ctypes.c_void_p()
    status = lib.bd_load(arena.address, size, model.address, model.size, host._kernels(lib), ctypes.byref(context))
    return host._status_name(lib, status), context


def test_arena_limits() -> None:
    """The stated size is enough to run in, one byte less is refused, and nothing outside is touched."""
    need = host.inspect(GOOD).arena_bytes
    model = Memory(len(GOOD), 0, GOOD)
    lib = host._library(host_library())
    for size, offset, status in (
        (need, 0, "BD_OK"),
        (need - 1, 0, "BD_ERROR_ARENA"),
        (need, 8, "BD_ERROR_ARENA"),
        (0, 0, "BD_ERROR_ARENA"),
    ):
        arena = Memory(size, offset)
        said, context = load(arena, size, model)
        assert said == status
        assert bool(context) == (status == "BD_OK")
        assert arena.guards_intact()
        if context:
            x, y = Memory(6 * 6 * 4, 4), Memory(40 * 4, 4)
            x.raw[x.start : x.start + x.size] = np.random.default_rng(0).integers(0, 256, x.size)
            inputs, outputs = (ctypes.c_void_p * 1)(x.address), (ctypes.c_void_p * 1)(y.address)
            before = x.raw.copy()
            assert lib.bd_run(context, inputs, 1, outputs, 1) == 0
            assert arena.guards_intact() and y.guards_intact()
            np.testing.assert_array_equal(x.raw, before)
            assert bytes(model.raw[model.start : model.start + model.size]) == GOOD


def test_misaligned_model_and_buffers() -> None:
    need = host.inspect(GOOD).arena_bytes
    assert load(Memory(need), need, Memory(len(GOOD), 4, GOOD))[0] == "BD_ERROR_ALIGNMENT"
    arena, model, lib = Memory(need), Memory(len(GOOD), 0, GOOD), host._library(host_library())
    _, context = load(arena, need, model)
    x, y = Memory(6 * 6 * 4, 2), Memory(40 * 4)
    inputs, outputs = (ctypes.c_void_p * 1)(x.address), (ctypes.c_void_p * 1)(y.address)

    def run(*arguments: Any) -> str:
        return host._status_name(lib, lib.bd_run(*arguments))

    assert run(context, inputs, 1, outputs, 1) == "BD_ERROR_ALIGNMENT"
    assert run(None, inputs, 1, outputs, 1) == "BD_ERROR_ARGUMENT"
    assert run(context, inputs, 2, outputs, 1) == "BD_ERROR_ARGUMENT"
    assert run(context, inputs, 1, outputs, 0) == "BD_ERROR_ARGUMENT"
    assert run(context, None, 1, outputs, 1) == "BD_ERROR_ARGUMENT"
    assert run(context, (ctypes.c_void_p * 1)(None), 1, outputs, 1) == "BD_ERROR_ARGUMENT"
    assert lib.bd_run_step(context, 0) != 0
    assert lib.bd_inspect(None, 0, None, None) != 0


def test_arena_macro(root: Path) -> None:
    """BD_ARENA_BYTES gives what bd_inspect reports: here for this machine's pointers."""
    pointer = ctypes.sizeof(ctypes.c_void_p)
    file = bdn.read(GOOD)
    context, table = 16 * pointer + 32, bdn.align(len(file.kernels) * pointer + 2 * len(file.steps))
    expected = context + table + int(file.header["tensor_bytes"]) + int(file.header["scratch_bytes"])
    assert host.inspect(GOOD).arena_bytes == expected
