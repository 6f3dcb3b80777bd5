"""The C API as docs/c-api.md shows it: its programs compiled and run; wrong calls refused by name; what an image links."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bdnet_deploy
from bdnet_deploy import bdn_format, firmware, resources, targets
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.export.c import write_c
from bdnet_deploy.graph import evaluate
from bdnet_deploy.host import HostModel
from bdnet_deploy.hostlib import host_library
from bdnet_deploy.lowering import Lowered

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "c-api.md"
DIGITS = resources.examples_dir() / "digits"
MODELS = {"digits": ("fixed16", False), "digits_rows": ("fixed16", True), "digits8": ("fixed8", False)}
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
PROGRAMS = ["one_call.c", "watchdog.c", "camera.c", "two_models.c", "application.cpp"]

OK, TRUNCATED, MAGIC, VERSION, CRC = range(5)
RECORD, KERNEL, ARENA, ALIGNMENT, ARGUMENT = 5, 8, 9, 10, 11
DONE, MORE, ROWS = range(3)


# -- the page ---------------------------------------------------------------------------------------------------


def blocks() -> dict[str, str]:
    """File name -> text of every block that begins with its name."""
    found = re.findall(r"^```(?:c|cpp)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    named = {}
    for text in found:
        name = re.match(r"(?:/\* file: (\S+) \*/|// file: (\S+))\n", text)
        assert name, f"a block without a file name: {text[:60]}"
        named[name[1] or name[2]] = text
    return named


def printed(program: str) -> str | None:
    """What the page says that a program prints."""
    pattern = rf"^```\n\$ \./{re.escape(program)}\n(.*?)^```"
    shown = re.search(pattern, PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return shown[1] if shown else None


@pytest.fixture(scope="module")
def models() -> dict[str, Lowered]:
    model = bdnet_deploy.load(DIGITS / "model.pt")
    return {
        name: model.lowered(numerics, DIGITS / "calibration.npz").replanned(push_rows=push)
        for name, (numerics, push) in MODELS.items()
    }


@pytest.fixture(scope="module")
def sample() -> np.ndarray[Any, Any]:
    with np.load(DIGITS / "test.npz") as data:
        return np.asarray(data["x"][:1])


def logits_of(lowered: Lowered, x: np.ndarray[Any, Any]) -> list[int]:
    output = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    return [int(v) for v in output.reshape(-1)]


@pytest.fixture(scope="module")
def folder(models: dict[str, Lowered], sample: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files and the generated models."""
    folder = tmp_path_factory.mktemp("c_api")
    for name, text in blocks().items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, lowered in models.items():
        io = bdnet_deploy.load(DIGITS / "model.pt").io
        source, header = write_c(lowered.plan, write_bdn(lowered.plan, io=io, sample=sample), name=name, io=io)
        (folder / f"{name}.c").write_text(source, encoding="utf-8")
        (folder / f"{name}.h").write_text(header, encoding="utf-8")
    return folder


def build(folder: Path, sources: Sequence[Path], into: str, compiler: str, *options: str) -> list[str]:
    """Objects of ``sources``."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (folder / into).mkdir()
    includes = [f"-I{p}" for p in (folder, *firmware.runtime_includes())]
    command = [compiler, *options, *WARNINGS, *includes, "-c", *map(str, sources)]
    done = subprocess.run(command, cwd=folder / into, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return [str(p) for p in sorted((folder / into).glob("*.o"))]


@pytest.fixture(scope="module")
def objects(folder: Path) -> list[str]:
    """The runtime and the three models, compiled as C."""
    sources = [*firmware.runtime_sources(), *(folder / f"{name}.c" for name in MODELS)]
    return build(folder, sources, "objects", "cc", "-std=c99", "-O1")


def run_program(
    folder: Path, objects: list[str], name: str, *, cpp: bool, options: Sequence[str] = ()
) -> tuple[int, str]:
    compiler = "g++" if cpp else "cc"
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    program = folder / f"{Path(name).stem}_{'cpp' if cpp else 'c'}{len(options)}"
    language = ["-x", "c++", "-std=c++11"] if cpp else ["-std=c99"]
    command = [
        compiler,
        *language,
        *WARNINGS,
        *options,
        f"-I{folder}",
        f"-I{ROOT / 'runtime/include'}",
        str(folder / name),
    ]
    done = subprocess.run([*command, "-x", "none", *objects, "-o", str(program)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([str(program)], capture_output=True, encoding="utf-8", timeout=60)
    assert not ran.stderr, ran.stderr
    return ran.returncode, ran.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_the_page(folder: Path, objects: list[str], name: str) -> None:
    code, output = run_program(folder, objects, name, cpp=name.endswith(".cpp"))
    shown = printed(Path(name).stem)
    assert output == (shown or "")
    assert (code, shown is None) == ((7, True) if name == "watchdog.c" else (0, False))


def test_a_c_program_is_cpp_too(folder: Path, objects: list[str]) -> None:
    assert run_program(folder, objects, "one_call.c", cpp=True) == (0, printed("one_call"))


@pytest.mark.slow
def test_programs_under_sanitizers(folder: Path) -> None:
    """No access outside the arrays of the programs: each is an object of its own."""
    options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    sources = [*firmware.runtime_sources(), *(folder / f"{name}.c" for name in MODELS)]
    checked = build(folder, sources, "sanitized", "gcc", "-std=c99", "-O1", *options)
    for name in PROGRAMS[:4]:
        code, output = run_program(folder, checked, name, cpp=False, options=options)
        assert (code, output) == (7 if name == "watchdog.c" else 0, printed(Path(name).stem) or "")


def test_the_page_has_all_programs_and_right_numbers(models: dict[str, Lowered], sample: np.ndarray[Any, Any]) -> None:
    found = blocks()
    assert set(found) == {*PROGRAMS, "digit.h"}
    rows = re.findall(r"^    \{([\d, ]+)\},$", found["digit.h"], re.MULTILINE)
    assert [int(v) for row in rows for v in row.split(",")] == sample.reshape(-1).tolist()
    logits = logits_of(models["digits"], sample)
    assert printed("one_call") == f"logits {' '.join(map(str, logits))}\nthis is a {int(np.argmax(logits))}\n"
    assert int(np.argmax(logits_of(models["digits8"], sample))) == 7


def test_the_page_names_every_status_and_macro(folder: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    header = (ROOT / "runtime" / "include" / "bdnet.h").read_text(encoding="utf-8")
    codes = re.findall(r"^\s+(BD_(?:OK|ERROR_\w+)) =\s+(\d+)", header, re.MULTILINE)
    assert len(codes) == 12
    for name, value in codes:
        assert f"| `{name}` | {value} |" in page, name
    for model in MODELS:
        header = (folder / f"{model}.h").read_text(encoding="utf-8")
        macros = re.findall(rf"^#define {model.upper()}_(\w+) ", header, re.MULTILINE)
        assert len(macros) > 10
        for macro in macros:
            assert f"DIGITS_{macro}`" in page or f"..._{macro.split('_', 1)[1]}`" in page, macro


# -- wrong calls ------------------------------------------------------------------------------------------------


class Aligned:
    """``size`` bytes at a multiple of 16 plus ``skew``, with 64 guard bytes on each side."""

    GUARD = 64

    def __init__(self, size: int, content: bytes = b"", skew: int = 0) -> None:
        self.memory = np.full(size + 2 * self.GUARD + 32, 0xA5, np.uint8)
        start = self.memory.ctypes.data + self.GUARD
        self.at = self.GUARD + (-start) % 16 + skew
        self.bytes = self.memory[self.at : self.at + size]
        self.bytes[: len(content)] = np.frombuffer(content, np.uint8)
        self.address = self.bytes.ctypes.data
        self.size = size

    def intact(self) -> bool:
        return bool((self.memory[: self.at] == 0xA5).all() and (self.memory[self.at + self.size :] == 0xA5).all())

    def untouched(self) -> bool:
        return bool((self.memory == 0xA5).all())


class Table(ctypes.Structure):
    _fields_ = (("kernels", ctypes.c_void_p), ("count", ctypes.c_uint32))


class ModelInfo(ctypes.Structure):
    _fields_ = (
        ("arena_bytes", ctypes.c_uint32), ("model_version", ctypes.c_uint32), ("inputs", ctypes.c_uint16),
        ("outputs", ctypes.c_uint16), ("steps", ctypes.c_uint16), ("missing_kernel", ctypes.c_char_p),
    )  # fmt: skip


class Runtime:
    """The host library as C sees it, with one model."""

    def __init__(self, data: bytes) -> None:
        self.lib = ctypes.CDLL(str(host_library()))
        self.table = ctypes.addressof(ctypes.c_char.in_dll(self.lib, "bd_kernels_all"))
        self.model = Aligned(len(data), data)
        self.arena = Aligned(HostModel(data).info.arena_bytes)
        self.input, self.output = Aligned(64), Aligned(20)
        self.context = ctypes.c_void_p(1)
        self.kept: list[Any] = []

    def load(
        self,
        *,
        arena: int | None = -1,
        arena_size: int = -1,
        model: int | None = -1,
        size: int = -1,
        table: int | None = -1,
    ) -> int:
        """``bd_load`` with some arguments replaced."""
        arguments = (
            ctypes.c_void_p(self.arena.address if arena == -1 else arena),
            ctypes.c_uint32(self.arena.size if arena_size == -1 else arena_size),
            ctypes.c_void_p(self.model.address if model == -1 else model),
            ctypes.c_uint32(self.model.size if size == -1 else size),
            ctypes.c_void_p(self.table if table == -1 else table),
        )
        return int(self.lib.bd_load(*arguments, ctypes.byref(self.context)))

    def infer(
        self,
        inputs: Sequence[int | None] | None = None,
        outputs: Sequence[int | None] | None = None,
        function: str = "bd_run",
    ) -> int:
        """``bd_run`` or ``bd_begin``; addresses replace the buffers."""
        ins = [self.input.address] if inputs is None else inputs
        outs = [self.output.address] if outputs is None else outputs
        arrays = (ctypes.c_void_p * len(ins))(*ins), (ctypes.c_void_p * len(outs))(*outs)
        self.kept.append(arrays)  # an inference in slices uses them to its end
        call = getattr(self.lib, function)
        return int(call(self.context, arrays[0], len(ins), arrays[1], len(outs)))

    def advance(self) -> tuple[int, int]:
        progress = ctypes.c_int(-1)
        return int(self.lib.bd_advance(self.context, ctypes.byref(progress))), progress.value

    def push(self, row: int | None) -> int:
        return int(self.lib.bd_push_row(self.context, ctypes.c_void_p(row)))

    def name(self, status: int) -> str:
        self.lib.bd_status_name.restype = ctypes.c_char_p
        text: bytes = self.lib.bd_status_name(status)
        return text.decode("ascii")


@pytest.fixture
def whole(models: dict[str, Lowered]) -> Iterator[Runtime]:
    runtime = Runtime(write_bdn(models["digits"].plan))
    yield runtime
    assert runtime.arena.intact() and runtime.input.intact() and runtime.output.intact() and runtime.model.intact()


@pytest.fixture
def rows(models: dict[str, Lowered]) -> Iterator[Runtime]:
    runtime = Runtime(write_bdn(models["digits_rows"].plan))
    yield runtime
    assert runtime.arena.intact() and runtime.input.intact() and runtime.output.intact() and runtime.model.intact()


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


def test_inference_in_slices(whole: Runtime, models: dict[str, Lowered], sample: np.ndarray[Any, Any]) -> None:
    assert whole.load() == OK
    whole.input.bytes[:] = sample.reshape(-1)
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
    assert whole.output.bytes.view("<i2").tolist() == logits_of(models["digits"], sample)
    assert whole.advance()[0] == ARGUMENT  # after the end
    assert whole.infer(function="bd_begin") == OK and whole.advance() == (OK, MORE)
    whole.output.bytes[:] = 0
    assert whole.infer() == OK  # gives up the one that is under way
    assert whole.output.bytes.view("<i2").tolist() == logits_of(models["digits"], sample)
    assert whole.advance()[0] == ARGUMENT


def test_rows_in_and_out_of_turn(rows: Runtime, models: dict[str, Lowered], sample: np.ndarray[Any, Any]) -> None:
    assert rows.load() == OK and rows.lib.bd_input_is_pushed(rows.context) == 1
    odd = Aligned(8, skew=1)  # rows may lie anywhere
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
            odd.bytes[:] = sample[0, pushed].reshape(-1)
            assert rows.push(odd.address) == OK
            assert rows.push(odd.address) == ARGUMENT  # one at a time
            pushed += 1
    assert pushed == 8
    expected = logits_of(models["digits_rows"], sample)
    assert rows.output.bytes.view("<i2").tolist() == expected
    assert rows.push(odd.address) == ARGUMENT
    rows.input.bytes[:] = sample.reshape(-1)
    rows.output.bytes[:] = 0
    assert rows.infer() == OK and rows.output.bytes.view("<i2").tolist() == expected  # a whole image
    assert odd.intact()


def test_files_of_other_kinds(whole: Runtime) -> None:
    data = whole.model.bytes.copy()

    def changed(at: int, value: bytes, *, seal: bool) -> int:
        content = bytes(data[:at]) + value + bytes(data[at + len(value) :])
        whole.model.bytes[:] = np.frombuffer(bdn_format.seal(content) if seal else content, np.uint8)
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


def test_no_test_vector(models: dict[str, Lowered]) -> None:
    data = write_bdn(models["digits"].plan)
    runtime = Runtime(bdn_format.seal(without_record(data, bdn_format.RECORD_TEST)))
    assert runtime.load() == OK
    passed = ctypes.c_int(-1)
    buffers = ctypes.c_void_p(runtime.input.address), ctypes.c_void_p(runtime.output.address)
    assert runtime.lib.bd_self_test(runtime.context, *buffers, ctypes.byref(passed)) == RECORD and passed.value == 0


@pytest.mark.parametrize("numerics", ["fixed16", "float"])
@pytest.mark.parametrize("literal", [True, False])
def test_a_pushed_model_tests_itself_without_an_input_buffer(
    models: dict[str, Lowered], sample: np.ndarray[Any, Any], literal: bool, numerics: str
) -> None:
    """The rows of the vector, literal or generated, go straight into the ring."""
    model = bdnet_deploy.load(DIGITS / "model.pt")
    lowered = model.lowered(numerics, DIGITS / "calibration.npz").replanned(push_rows=True)
    x = lowered.encode(model.samples(DIGITS / "calibration.npz").x[:1])
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


def without_record(data: bytes, kind: int) -> bytes:
    """A file without one record; the size in the header is put right."""
    at = 64
    while int.from_bytes(data[at : at + 4], "little") != kind:
        at += 16 + -(-int.from_bytes(data[at + 4 : at + 8], "little") // 16) * 16
    end = at + 16 + -(-int.from_bytes(data[at + 4 : at + 8], "little") // 16) * 16
    rest = data[:at] + data[end:]
    return rest[:8] + len(rest).to_bytes(4, "little") + rest[12:]


def test_one_context_a_thread(models: dict[str, Lowered]) -> None:
    """Contexts of one model run at the same time."""
    data = write_bdn(models["digits"].plan)
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
        expected = evaluate(models["digits"].graph, [images])[models["digits"].graph.outputs[0].name]
        assert np.array_equal(output.reshape(expected.shape), expected)


# -- what an image links ----------------------------------------------------------------------------------------


def helpers(fpu: bool, armv6: bool) -> set[str]:
    """What the page says that the runtime's objects need on such a core."""
    text = PAGE.read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| (everywhere|on Armv6-M|by float kernels without an FPU) \| (.*?) \|", text, re.MULTILINE)
    )
    assert len(rows) == 3
    used = [rows["everywhere"]]
    used += [rows["on Armv6-M"]] * armv6 + [rows["by float kernels without an FPU"]] * (not fpu)
    return set(re.findall(r"`(\w+)`", " ".join(used)))


SOFT_FLOAT = re.compile(r"__aeabi_[fd]\w+|__aeabi_u?[il]2[fd]|__(add|sub|mul|div|float|fix)\w*[sd]f\w*")


@pytest.fixture(scope="module", params=["cortex-m0plus", "cortex-m4"])
def image(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page's watchdog.c with a self-test, a fixed16 model and the runtime, linked for a core."""
    for package in ("ziglang", "capstone", "elftools", "unicorn"):
        pytest.importorskip(package)
    from bdnet_deploy.toolchain import build_image

    core = targets.core(request.param)
    sources = [folder / "watchdog.c", folder / "digits.c", *firmware.runtime_sources()]
    boot = tmp_path_factory.mktemp("image") / "boot.c"
    boot.write_text(
        '#include "bdnet.h"\nint boot(bd_context *c, void *x, void *y);\n__attribute__((used, retain)) int boot(bd_context *c, '
        "void *x, void *y) {\n    int passed;\n    return bd_self_test(c, x, y, &passed) == BD_OK && passed;\n}\n",
        encoding="utf-8",
    )
    out = tmp_path_factory.mktemp(request.param) / "watchdog.elf"
    return core, build_image(core, [*sources, boot], out, includes=[folder, *firmware.runtime_includes()])


def test_watchdog_runs_on_an_emulated_core(image: Any) -> None:
    from bdnet_deploy.emulator import Emulator

    core, elf = image
    with Emulator(elf, core) as emulator:
        result = emulator.run(count=True)
    assert (result.stopped, result.exit_code) == ("exit", 7)
    shown = re.search(r"at most (\d+)\s+instructions for each byte", PAGE.read_text(encoding="utf-8"))
    assert shown and result.by_function["bd_crc32"] <= int(shown[1]) * elf.symbols["digits_data"].size


@pytest.mark.parametrize("model", ["digits", "digits8"])
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33"])
def test_a_fixed_image_links_no_floating_point(
    core: str, model: str, models: dict[str, Lowered], tmp_path: Path
) -> None:
    """Neither a soft-float routine (by symbol) nor an FPU instruction (by disassembly)."""
    for package in ("ziglang", "capstone", "elftools"):
        pytest.importorskip(package)
    elf = firmware.build_with_model("runner", models[model], targets.core(core), tmp_path)
    assert {"bd_self_test", "bd_run", "bd_load", "bd_push_row"} <= set(elf.symbols)
    assert not [name for name in elf.symbols if SOFT_FLOAT.fullmatch(name)]
    assert fpu_instructions(elf.path) == {}


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_floating_point_is_found_where_it_is(core: str, tmp_path: Path) -> None:
    for package in ("ziglang", "capstone", "elftools"):
        pytest.importorskip(package)
    from bdnet_deploy.toolchain import build_image

    source = tmp_path / "main.c"
    source.write_text("volatile float x;\nint main(void) {\n    x = x * x;\n    return 0;\n}\n", encoding="utf-8")
    image = build_image(targets.core(core), [source], tmp_path / "main.elf")
    assert (list(fpu_instructions(image.path, at_least=100)) == ["main"]) == (core == "cortex-m4")
    assert ("__aeabi_fmul" in image.symbols) == (core == "cortex-m0plus")


def fpu_instructions(path: Path, *, at_least: int = 10_000) -> dict[str, list[str]]:
    """Function -> its instructions that name an FPU register. Literal pools ($d) are not code."""
    import capstone
    from elftools.elf.elffile import ELFFile

    disassembler = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    found: dict[str, list[str]] = {}
    decoded = 0
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        symbols = list(_section(elf, ".symtab").iter_symbols())
        text = _section(elf, ".text")
        index, start, content = elf.get_section_index(".text"), text["sh_addr"], text.data()
        inside = [s for s in symbols if s["st_shndx"] == index]
        kinds = sorted((s["st_value"], s.name[:2]) for s in inside if s.name[:2] in ("$t", "$d"))
        functions = sorted((s["st_value"] & ~1, s.name) for s in inside if s["st_info"]["type"] == "STT_FUNC")
    assert kinds
    for (address, kind), end in zip(kinds, [*(a for a, _ in kinds[1:]), start + len(content)], strict=True):
        if kind != "$t":
            continue
        for instruction in disassembler.disasm(content[address - start : end - start], address):
            decoded += instruction.size
            if instruction.mnemonic.startswith("v"):
                function = max((f for f in functions if f[0] <= instruction.address), default=(0, "?"))[1]
                found.setdefault(function, []).append(f"{instruction.mnemonic} {instruction.op_str}")
    assert decoded >= at_least  # the mapping symbols are there and were understood
    return found


def _section(elf: Any, name: str) -> Any:
    section = elf.get_section_by_name(name)
    assert section is not None
    return section


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33"])
def test_what_the_runtime_needs_from_outside(core: str) -> None:
    """Undefined symbols of the objects, without what they define for each other; and no writable data."""
    for package in ("ziglang", "elftools"):
        pytest.importorskip(package)
    from bdnet_deploy.toolchain import zig

    where = targets.core(core)
    objects = zig.compile_objects(firmware.runtime_sources(), where, (), None, firmware.runtime_includes(), None)
    needed = undefined(objects)
    allowed = helpers(where.has_fpu, core == "cortex-m0plus")
    assert needed <= allowed, needed - allowed
    if core == "cortex-m0plus":  # what is needed is found
        assert {"__aeabi_uidiv", "__aeabi_lmul", "__aeabi_fmul"} <= needed


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3"])
def test_what_the_runtime_needs_when_gcc_compiles_it(core: str, tmp_path: Path) -> None:
    options = [f"-mcpu={core}", "-mthumb", "-std=c99", "-O2", "-ffreestanding"]
    objects = build(tmp_path, firmware.runtime_sources(), "gcc", "arm-none-eabi-gcc", *options)
    needed = undefined([Path(name) for name in objects])
    assert needed <= helpers(False, core == "cortex-m0plus"), needed


def undefined(objects: Sequence[Path]) -> set[str]:
    """Symbols that none of the objects defines. None of them may have writable data."""
    from elftools.elf.elffile import ELFFile

    found: set[str] = set()
    defined: set[str] = set()
    for path in objects:
        with path.open("rb") as stream:
            file = ELFFile(stream)
            for section in file.iter_sections():
                writable = section["sh_flags"] & 3 == 3 and section["sh_size"]
                assert not writable or section.name.startswith(".data.rel.ro"), (path, section.name)
            for symbol in _section(file, ".symtab").iter_symbols():
                (found if symbol["st_shndx"] == "SHN_UNDEF" else defined).add(symbol.name)
    return found - defined - {""}
