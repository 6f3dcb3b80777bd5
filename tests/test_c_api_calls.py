"""Wrong calls: refused by name, with nothing touched outside the buffers, which lie between guard pages."""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_calls import (
    ALIGNMENT,
    ARENA,
    ARGUMENT,
    CRC,
    DONE,
    KERNEL,
    MAGIC,
    MORE,
    OK,
    RECORD,
    ROWS,
    TRUNCATED,
    VERSION,
    Guarded,
    ModelInfo,
    Runtime,
    Table,
)
from c_programs import DIGITS, ROOT, logits_of, model, models, sample

from bdnet_deploy import bdn_format
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import evaluate
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered

NUMERICS = ["float", "fixed16", "fixed8"]


@pytest.fixture(params=["start", "end"])
def whole(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    runtime = Runtime(write_bdn(models()["digits"].plan), request.param)
    yield runtime
    assert runtime.intact()


@pytest.fixture(params=["start", "end"])
def rows(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    runtime = Runtime(write_bdn(models()["digits_rows"].plan), request.param)
    yield runtime
    assert runtime.intact()


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@pytest.mark.parametrize(
    "access",
    ["read(-1)", "read(20)", "write(-1)", "write(20)", "write(0)"],
)
def test_guard_pages_end_a_program(access: str) -> None:
    """One byte beside the buffer, or a write to a read-only one, is a fault; a read inside is none."""
    program = (
        "import ctypes, sys; from c_calls import Guarded\n"
        "at = sys.argv[2]; g = Guarded(20, at=at, align=4); g.read_only()\n"
        "byte = lambda i: (ctypes.c_char * 1).from_address(g.address + i)\n"
        "def read(i): bytes(byte(i))\n"
        "def write(i): byte(i)[0] = b'x'\n"
        "read(0); read(19); eval(sys.argv[1]); print('survived')"
    )
    at = "start" if "-1" in access else "end"
    done = subprocess.run(
        [sys.executable, "-c", program, access, at],
        env={"PYTHONPATH": str(Path(__file__).parent), "PATH": ""},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert "survived" not in done.stdout


def test_status_names(whole: Runtime) -> None:
    header = (ROOT / "runtime" / "include" / "bdnet.h").read_text(encoding="utf-8")
    for name, value in re.findall(r"^\s+(BD_(?:OK|ERROR_\w+)) =\s+(\d+)", header, re.MULTILINE):
        assert whole.name(int(value)) == name
    assert whole.name(99) == "unknown status"


def test_arena_and_model_must_fit(whole: Runtime) -> None:
    refused: list[tuple[int, dict[str, Any]]] = [
        (ARENA, {"arena_size": whole.arena.size - 1}),
        (ARENA, {"arena_size": 0}),
        (ARENA, {"arena": whole.arena.address + 8}),
        (ALIGNMENT, {"model": whole.model.address + 4}),
        (TRUNCATED, {"size": whole.model.size - 1}),
        (TRUNCATED, {"size": 63}),
        (TRUNCATED, {"size": 0}),
        (ARGUMENT, {"arena": None}),
        (ARGUMENT, {"model": None}),
        (ARGUMENT, {"table": None}),
    ]
    for status, arguments in refused:
        whole.context.value = 1
        assert whole.load(**arguments) == status, arguments
        if status != ARGUMENT:
            assert whole.context.value is None
    assert whole.arena.untouched()
    assert whole.load(arena_size=whole.arena.size) == OK and whole.context.value


def test_null_pointers(whole: Runtime) -> None:
    lib, nothing = whole.lib, ctypes.c_void_p()
    assert lib.bd_load(ctypes.c_void_p(whole.arena.address), whole.arena.size, ctypes.c_void_p(whole.model.address),
                       whole.model.size, ctypes.c_void_p(whole.table), nothing) == ARGUMENT  # fmt: skip
    info = ModelInfo()
    model, table = ctypes.c_void_p(whole.model.address), ctypes.c_void_p(whole.table)
    assert lib.bd_inspect(nothing, whole.model.size, table, ctypes.byref(info)) == ARGUMENT
    assert lib.bd_inspect(model, whole.model.size, nothing, ctypes.byref(info)) == ARGUMENT
    assert lib.bd_inspect(model, whole.model.size, table, nothing) == ARGUMENT
    assert lib.bd_run(nothing, nothing, 1, nothing, 1) == ARGUMENT
    assert lib.bd_advance(nothing, nothing) == ARGUMENT and lib.bd_push_row(nothing, nothing) == ARGUMENT
    assert lib.bd_input_shape(nothing, 0, nothing) == ARGUMENT and lib.bd_input_is_pushed(nothing) == 0
    assert whole.arena.untouched()
    assert whole.load() == OK
    assert lib.bd_run(whole.context, nothing, 1, nothing, 1) == ARGUMENT
    assert lib.bd_advance(whole.context, nothing) == ARGUMENT
    shape = (ctypes.c_uint16 * 4)()
    assert (
        lib.bd_input_shape(whole.context, 1, shape) == ARGUMENT
        and lib.bd_output_shape(whole.context, 1, shape) == ARGUMENT
    )
    assert lib.bd_input_shape(whole.context, 0, shape) == OK and list(shape) == [8, 8, 1, int(bdn_format.DType.U8)]
    passed = ctypes.c_int(-1)
    buffers = [ctypes.c_void_p(whole.input.address), ctypes.c_void_p(whole.output.address), ctypes.byref(passed)]
    for absent in range(3):
        arguments = [nothing if i == absent else b for i, b in enumerate(buffers)]
        assert lib.bd_self_test(whole.context, *arguments) == ARGUMENT
    assert lib.bd_self_test(whole.context, *buffers) == OK and passed.value == 1


def test_buffers_and_counts(whole: Runtime) -> None:
    assert whole.load() == OK
    x, y = whole.input.address, whole.output.address
    for function in ("bd_run", "bd_begin"):
        assert whole.infer([x + 1], [y], function) == ALIGNMENT
        assert whole.infer([x], [y + 2], function) == ALIGNMENT
        assert whole.infer([None], [y], function) == ARGUMENT
        assert whole.infer([x], [None], function) == ARGUMENT
        assert whole.infer([x, x], [y], function) == ARGUMENT
        assert whole.infer([x], [y, y], function) == ARGUMENT
        assert whole.infer([], [y], function) == ARGUMENT
        assert whole.advance()[0] == ARGUMENT  # none of these has begun anything
    assert whole.output.untouched()
    assert whole.infer() == OK and not whole.output.untouched()


def test_inference_in_slices(whole: Runtime) -> None:
    assert whole.load() == OK
    whole.input.bytes[:] = sample().reshape(-1)
    assert whole.advance()[0] == ARGUMENT  # before bd_begin
    assert whole.infer(function="bd_begin") == OK
    for _ in range(5):
        assert whole.advance() == (OK, MORE)
    assert whole.push(whole.input.address) == ARGUMENT  # this model takes no rows
    assert whole.infer([whole.input.address + 1], None, "bd_begin") == ALIGNMENT  # the inference goes on all the same
    status, progress = OK, MORE
    while (status, progress) == (OK, MORE):
        status, progress = whole.advance()
    assert (status, progress) == (OK, DONE)
    assert whole.output.bytes.view("<i2").tolist() == logits_of(models()["digits"], sample())
    assert whole.advance()[0] == ARGUMENT  # after the end
    assert whole.infer(function="bd_begin") == OK and whole.advance() == (OK, MORE)
    whole.output.bytes[:] = 0
    assert whole.infer() == OK  # gives up the one that is under way
    assert whole.output.bytes.view("<i2").tolist() == logits_of(models()["digits"], sample())
    assert whole.advance()[0] == ARGUMENT


def test_rows_in_and_out_of_turn(rows: Runtime) -> None:
    assert rows.load() == OK and rows.lib.bd_input_is_pushed(rows.context) == 1
    odd = Guarded(8, skew=1)  # rows may lie anywhere
    assert rows.push(odd.address) == ARGUMENT  # no inference under way
    assert rows.infer([None]) == ARGUMENT  # rows cannot be pushed into bd_run
    assert rows.infer([None], None, "bd_begin") == OK
    assert rows.push(odd.address) == ARGUMENT  # not asked for yet
    pushed = 0
    while True:
        status, progress = rows.advance()
        assert status == OK
        if progress == DONE:
            break
        if progress == ROWS:
            assert rows.advance() == (OK, ROWS)  # asks again
            assert rows.push(None) == ARGUMENT
            odd.bytes[:] = sample()[0, pushed].reshape(-1)
            assert rows.push(odd.address) == OK
            assert rows.push(odd.address) == ARGUMENT  # one at a time
            pushed += 1
    assert pushed == 8
    expected = logits_of(models()["digits_rows"], sample())
    assert rows.output.bytes.view("<i2").tolist() == expected
    assert rows.push(odd.address) == ARGUMENT
    rows.input.bytes[:] = sample().reshape(-1)
    rows.output.bytes[:] = 0
    assert rows.infer() == OK and rows.output.bytes.view("<i2").tolist() == expected  # a whole image
    assert odd.intact()


def test_files_of_other_kinds(whole: Runtime) -> None:
    data = whole.model.bytes.copy()

    def changed(at: int, value: bytes, *, seal: bool) -> int:
        content = bytes(data[:at]) + value + bytes(data[at + len(value) :])
        whole.model.put(bdn_format.seal(content) if seal else content)
        return whole.load()

    assert changed(0, b"BDN2", seal=False) == MAGIC
    assert changed(14, b"\x02\x00", seal=True) == VERSION  # oldest_reader 2
    assert changed(12, b"\x00\x00", seal=True) == VERSION  # format_version 0
    assert changed(12, b"\x02\x00", seal=True) == OK  # a newer writer whose file this reader may run
    assert changed(200, bytes([data[200] ^ 1]), seal=False) == CRC


def test_missing_kernel_is_named(whole: Runtime) -> None:
    full = Table.from_address(whole.table)
    info = ModelInfo()
    names = [bytes(whole.model.bytes[80 + 32 * i : 112 + 32 * i]).rstrip(b"\0") for i in range(7)]
    assert b"bd_conv_uq_i32" in names
    first = ctypes.cast(full.kernels, ctypes.POINTER(ctypes.POINTER(ctypes.c_char_p)))[0][0]
    for count in (0, 1):
        table = Table(full.kernels, count)
        status = whole.lib.bd_inspect(
            ctypes.c_void_p(whole.model.address), whole.model.size, ctypes.byref(table), ctypes.byref(info)
        )
        assert status == KERNEL
        assert info.missing_kernel == next(n for n in names if count == 0 or n != first)
        assert whole.load(table=ctypes.addressof(table)) == KERNEL and whole.context.value is None
    assert whole.arena.untouched()


def test_no_test_vector() -> None:
    data = write_bdn(models()["digits"].plan)
    runtime = Runtime(bdn_format.seal(without_record(data, bdn_format.RECORD_TEST)))
    assert runtime.load() == OK
    passed = ctypes.c_int(-1)
    buffers = ctypes.c_void_p(runtime.input.address), ctypes.c_void_p(runtime.output.address)
    assert runtime.lib.bd_self_test(runtime.context, *buffers, ctypes.byref(passed)) == RECORD and passed.value == 0


@pytest.mark.parametrize("numerics", ["fixed16", "float"])
@pytest.mark.parametrize("literal", [True, False])
def test_a_pushed_model_tests_itself_without_an_input_buffer(literal: bool, numerics: str) -> None:
    """The rows of the vector, literal or generated, go straight into the ring."""
    lowered = model().lowered(numerics, DIGITS / "calibration.npz").replanned(push_rows=True)
    x = lowered.encode(model().samples(DIGITS / "calibration.npz").x[:1])
    data = write_bdn(lowered.plan, sample=x if literal else None)
    vector = bdn_format.read(data).test_vector
    assert vector is not None and int(vector["kind"]) == (0 if literal else 1)
    for damaged in (False, True):
        if damaged:  # the checksum or the bytes of the output
            changed = bytearray(data)
            at = data.index(vector.tobytes()) + (len(vector.tobytes()) + x.nbytes if literal else 16)
            changed[at] ^= 1
            data = bdn_format.seal(bytes(changed))
        runtime = Runtime(data)
        assert runtime.load() == OK
        passed = ctypes.c_int(-1)
        output = ctypes.c_void_p(runtime.output.address)
        assert runtime.lib.bd_self_test(runtime.context, None, output, ctypes.byref(passed)) == OK
        assert passed.value == (0 if damaged else 1)


def record_ends(data: bytes) -> list[int]:
    at, ends = 64, []
    while at < len(data):
        at += 16 + -(-int.from_bytes(data[at + 4 : at + 8], "little") // 16) * 16
        ends.append(at)
    return ends


def without_record(data: bytes, kind: int) -> bytes:
    """A file without one record; the size in the header is put right."""
    at = 64
    while int.from_bytes(data[at : at + 4], "little") != kind:
        at += 16 + -(-int.from_bytes(data[at + 4 : at + 8], "little") // 16) * 16
    end = at + 16 + -(-int.from_bytes(data[at + 4 : at + 8], "little") // 16) * 16
    rest = data[:at] + data[end:]
    return rest[:8] + len(rest).to_bytes(4, "little") + rest[12:]


def test_one_context_a_thread() -> None:
    """Contexts of one model run at the same time."""
    data = write_bdn(models()["digits"].plan)
    x = np.random.default_rng(4).integers(0, 17, (4, 40, 8, 8, 1)).astype(np.uint8)
    contexts = [HostModel(data) for _ in x]
    found: list[Any] = [None] * len(x)

    def work(i: int) -> None:
        found[i] = contexts[i].run(x[i])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for images, output in zip(x, found, strict=True):
        expected = evaluate(models()["digits"].graph, [images])[models()["digits"].graph.outputs[0].name]
        assert np.array_equal(output.reshape(expected.shape), expected)


@pytest.mark.parametrize("seed", range(4))
def test_contexts_interleave(seed: int) -> None:
    """Slices of inferences in arenas of their own, in any order; one of them gets its rows pushed."""
    rng = np.random.default_rng(seed)
    names = ["digits", "digits8", "digits_rows"]
    runtimes = [Runtime(write_bdn(models()[name].plan)) for name in names]
    images = rng.integers(0, 17, (3, 1, 8, 8, 1)).astype(np.uint8)
    for runtime, image in zip(runtimes, images, strict=True):
        pushed = runtime is runtimes[2]
        runtime.input.put(image.tobytes())
        assert runtime.load() == OK
        assert runtime.infer([None] if pushed else None, None, "bd_begin") == OK
    left, row = [0, 1, 2], 0
    while left:
        at = int(rng.choice(left))
        status, progress = runtimes[at].advance()
        assert status == OK
        if progress == ROWS:
            assert runtimes[at].push(runtimes[at].input.address + 8 * row) == OK
            row += 1
        elif progress == DONE:
            left.remove(at)
    for runtime, image, name in zip(runtimes, images, names, strict=True):
        assert runtime.output.bytes.view("<i2").tolist() == logits_of(models()[name], image)
        assert runtime.intact()


# -- nothing outside the buffers ------------------------------------------------------------------------------------------------


def variants() -> dict[str, Lowered]:
    """Models of every numerics, whole, streamed and with rows pushed."""
    found = {n: model().lowered(n, None if n == "float" else DIGITS / "calibration.npz") for n in NUMERICS}
    whole = found["fixed16"].plan
    found["streamed"] = found["fixed16"].replanned(ram=whole.tensor_bytes + whole.scratch_bytes - 16)
    found["pushed"] = found["fixed8"].replanned(push_rows=True)
    return found


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("variant", [*NUMERICS, "streamed", "pushed"])
def test_an_inference_stays_in_its_buffers(variant: str, at: str) -> None:
    """Nor does it write to its input or its model: both are read-only."""
    lowered = variants()[variant]
    assert lowered.plan.streamed == 0 or variant in ("streamed", "pushed")
    runtime = Runtime(write_bdn(lowered.plan), at)
    images = model().samples(DIGITS / "test.npz", limit=3).x
    assert runtime.load() == OK
    for x in lowered.encode(images):
        runtime.input.put(np.ascontiguousarray(x).tobytes())
        assert runtime.infer() == OK
        expected = evaluate(lowered.graph, [x[None]])[lowered.graph.outputs[0].name]
        found = runtime.output.bytes.view(expected.dtype if variant == "float" else np.int16)
        assert np.array_equal(found, expected.reshape(-1))
    runtime.input.read_only(False)
    passed = ctypes.c_int(-1)
    buffers = ctypes.c_void_p(runtime.input.address), ctypes.c_void_p(runtime.output.address)
    assert runtime.lib.bd_self_test(runtime.context, *buffers, ctypes.byref(passed)) == OK and passed.value == 1
    assert runtime.intact()


def test_an_arena_that_really_is_one_byte_short(whole: Runtime) -> None:
    for at in ("start", "end"):
        short = Guarded(whole.arena.size - 1, at=at)
        assert whole.load(arena=short.address, arena_size=short.size) == ARENA and short.untouched()


@pytest.mark.parametrize("lie", [False, True], ids=["cut off", "header says so"])
def test_the_loader_reads_nothing_behind_the_model(lie: bool) -> None:
    """Every length of a truncated file, flush with a guard page; the arena stays as it was."""
    data = write_bdn(models()["digits8"].plan)
    runtime = Runtime(data)
    complete = record_ends(data)[3:]  # what follows the constants is optional
    lengths = sorted({*range(0, len(data), 16), 1, 7, 63, 65, len(data) - 1})
    for length in lengths:
        part = data[:length]
        if lie:
            if length < 64 or length % 16:
                continue
            part = bdn_format.seal(part[:8] + length.to_bytes(4, "little") + part[12:])
        # The address is a multiple of 16, so that what is behind an odd length is 15 bytes at most.
        cut = Guarded(length, part)
        cut.read_only()
        status = runtime.load(model=cut.address, size=length)
        if lie and length in complete:
            assert status == OK
            runtime.arena.bytes[:] = 0xA5
            continue
        assert status == (RECORD if lie else TRUNCATED), length
        assert runtime.context.value is None and runtime.arena.untouched()


def test_damaged_models_stay_in_their_buffers() -> None:
    """Bytes of header, tensors and steps changed and the checksum mended: refused, or run without a fault."""
    data = write_bdn(models()["digits_rows"].plan)
    rng = np.random.default_rng(11)
    end = data.index(bdn_format.read(data).constants[:64])
    runtime = Runtime(data)
    shapes = [shapes_of(runtime)] if runtime.load() == OK else []
    refused = ran = 0
    for _ in range(600):
        changed = bytearray(data)
        for at in rng.integers(12, end, int(rng.integers(1, 3))):
            changed[at] ^= int(rng.integers(1, 256)) if rng.random() < 0.5 else 1 << int(rng.integers(0, 8))
        runtime.model.put(bdn_format.seal(bytes(changed)))
        runtime.arena.bytes[:] = 0xA5
        status = runtime.load()
        if status != OK:
            refused += 1
            assert runtime.context.value is None and runtime.arena.untouched()
        elif shapes_of(runtime) == shapes[0]:  # else the buffers are not the model's
            ran += 1
            assert runtime.infer() in (OK, 7)  # 7: a schedule that never ends its rows
        assert runtime.intact()
    assert refused > 100 and ran > 20


def shapes_of(runtime: Runtime) -> list[list[int]]:
    found = []
    for function in (runtime.lib.bd_input_shape, runtime.lib.bd_output_shape):
        shape = (ctypes.c_uint16 * 4)()
        assert function(runtime.context, 0, shape) == OK
        found.append(list(shape))
    return found
