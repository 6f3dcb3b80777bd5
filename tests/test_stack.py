"""Worst-case stack from linked images: against the compilers' own frame sizes, the painted stack of real runs, and hand counts."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bdnet_deploy
from bdnet_deploy import errors, firmware, resources, targets
from bdnet_deploy.emulated import EmulatedModel
from bdnet_deploy.toolchain import build_image
from bdnet_deploy.toolchain.linker import linker_script
from bdnet_deploy.toolchain.stack import StackError, StackReport, analyse_stack
from bdnet_deploy.toolchain.stack.program import Program

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
DIGITS = resources.examples_dir() / "digits"
RUNNER = resources.firmware_dir() / "runner" / "main.c"


# -- frames, against what the compilers say ----------------------------------------------------------------------


def stack_sizes(path: Path) -> dict[int, int]:
    """Function -> bytes, from clang's section ``.stack_sizes``: an address and a ULEB128 number each."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".stack_sizes")
        assert section is not None
        data: bytes = section.data()
    sizes = {}
    at = 0
    while at < len(data):
        address, number, shift = int.from_bytes(data[at : at + 4], "little"), 0, 0
        at += 4
        while True:
            number |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                break
        sizes[address & ~1] = number
    return sizes


@pytest.mark.parametrize(
    "core", [c if c in ("cortex-m0plus", "cortex-m4") else pytest.param(c, marks=pytest.mark.slow) for c in CORES]
)
def test_frames_are_those_of_the_compiler(core: str, tmp_path: Path) -> None:
    """Every C function of the runtime, with all kernels."""
    image = build_image(
        targets.core(core),
        [RUNNER, *firmware.runtime_sources()],
        tmp_path / "runner.elf",
        includes=firmware.runtime_includes(),
        flags=["-fstack-size-section"],
    )
    report = analyse_stack(image.path)
    assert not report.cycles and not report.problems
    program = Program(image.path)
    expected = {program.name_of(address): size for address, size in stack_sizes(image.path).items()}
    del expected["bd_fault"]  # the handler of exceptions: nothing calls it
    assert len(expected) > 90
    assert {name: report.frames[name] for name in expected} == expected
    for name in ("bd_reset", "bd_load", "bd_run", "bd_advance", "bd_self_test"):
        check_path(report, name)


def check_path(report: StackReport, entry: str) -> None:
    bound = report.bound(entry)
    assert bound.bytes == sum(step.bytes for step in bound.path)
    names = [step.function for step in bound.path]
    assert names[0] == entry
    assert all(callee in report.calls[caller] for caller, callee in itertools.pairwise(names))
    assert bound.bytes >= max(report.frames[name] for name in names)


def build_gnu(folder: Path, cpu: str, optimise: str, sources: Sequence[Path]) -> tuple[Path, dict[str, int]]:
    """An image by GCC, and function -> bytes as ``-fstack-usage`` gives them, where a name is unique."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    flags = ["arm-none-eabi-gcc", f"-mcpu={cpu}", "-mthumb", optimise, "-std=c99", "-ffreestanding"]
    flags += ["-ffunction-sections", "-fdata-sections"]
    common = resources.firmware_dir() / "common"
    system = [common / f"{name}.c" for name in ("start_cortexm", "port_semihosting", "port_print", "mem")]
    objects = []
    for source in [*sources, *system]:
        objects.append(str(folder / f"{source.stem}.o"))
        search = [f"-I{p}" for p in (*firmware.runtime_includes(), common)]
        run([*flags, "-fstack-usage", *search, "-c", str(source), "-o", objects[-1]])
    memories = targets.core(cpu).memories
    script = linker_script(memories, vector_table=memories[0].origin, boot2=False, stack_bytes=4096)
    (folder / "image.ld").write_text(script, encoding="utf-8")
    link = ["-nostdlib", "-static", "-Wl,--gc-sections", "-T", str(folder / "image.ld"), *objects, "-lgcc"]
    run([*flags, *link, "-o", str(folder / "image.elf")])
    usage: dict[str, list[int]] = {}
    for path in folder.glob("*.su"):
        for line in path.read_text(encoding="utf-8").splitlines():
            place, size, _ = line.split("\t")
            usage.setdefault(place.split(":")[-1], []).append(int(size))
    return folder / "image.elf", {name: sizes[0] for name, sizes in usage.items() if len(sizes) == 1}


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("optimise", ["-O1", "-O2", "-Os"])
@pytest.mark.parametrize("cpu", ["cortex-m0plus", "cortex-m4"])
def test_frames_are_those_of_gcc(cpu: str, optimise: str, tmp_path: Path) -> None:
    """With libgcc's soft-float and division, and kernel calls and jump tables as GCC writes them."""
    path, usage = build_gnu(tmp_path, cpu, optimise, [RUNNER, *firmware.runtime_sources()])
    # GCC does not inline the runner's function that takes another one as its argument.
    callbacks = {"io_bytes": ["bd_input_shape", "bd_output_shape"]}
    assert "io_bytes calls through a pointer" in str(analyse_stack(path).problems["bd_reset"])
    report = analyse_stack(path, indirect=callbacks)
    assert not report.problems and not report.cycles
    expected = {name: size for name, size in usage.items() if name in report.frames}
    assert len(expected) > 60
    assert {name: report.frames[name] for name in expected} == expected
    check_path(report, "bd_reset")


# -- whole images, against real runs -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> bdnet_deploy.Model:
    return bdnet_deploy.load(DIGITS / "model.pt")


@pytest.mark.parametrize(
    ("core", "numerics", "rows"),
    [
        ("cortex-m0plus", "fixed16", False),
        ("cortex-m0plus", "float", True),
        ("cortex-m4", "fixed8", True),
        ("cortex-m33", "float", False),
        *(
            pytest.param(core, numerics, False, marks=pytest.mark.slow)
            for core in CORES
            for numerics in ("fixed16", "fixed8", "float")
        ),
    ],
)
def test_no_run_takes_more(core: str, numerics: str, rows: bool, model: bdnet_deploy.Model) -> None:
    sets = targets.core(core).sets
    lowered = model.lowered(numerics, DIGITS / "calibration.npz").replanned(push_rows=rows, sets=sets)
    x = lowered.encode(model.samples(DIGITS / "calibration.npz").x[:1])[0]
    with EmulatedModel(lowered, core) as emulated:
        emulated.run(x)
        assert emulated.runner.self_test()
        painted = emulated.emulator.run().stack_high_water  # since the start: loading, inference and self-test
        report = analyse_stack(emulated.image.path)
        calls = kernel_functions(emulated.image.path, lowered.plan.kernels, sets)
    worst = report.bound("bd_reset").bytes
    print(f"{core} {numerics}: painted {painted}, worst case {worst}")
    assert not report.cycles and not report.problems
    assert painted <= worst <= painted * 3 // 2
    assert calls["run"] <= set(report.calls["bd_run_rows"])
    assert calls["check"] <= set(report.calls["bd_check_model"])
    others = {"bd_step_enter", "bd_step_leave", "bd_step_operands"}  # and compiler helpers
    direct = {name for name in report.calls["bd_run_rows"] if not name.startswith("__")} - others
    assert direct >= calls["run"]  # and the plain kernels that variants fall back to


def kernel_functions(path: Path, names: Sequence[str], sets: Sequence[str]) -> dict[str, set[str]]:
    """What the structures of these kernels, or of their variants, point to, read with pyelftools alone."""
    from elftools.elf.elffile import ELFFile

    program = Program(path)
    found: dict[str, set[str]] = {"run": set(), "check": set()}
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        table: Any = elf.get_section_by_name(".symtab")
        for name in names:
            best = next(s for s in (*(f"{name}_on_{x}" for x in sets), name) if table.get_symbol_by_name(s))
            address = table.get_symbol_by_name(best)[0]["st_value"]
            section = next(s for s in elf.iter_sections() if s["sh_addr"] <= address < s["sh_addr"] + s["sh_size"])
            data = section.data()[address - section["sh_addr"] :]
            _, run_at, check_at = np.frombuffer(data[:12], "<u4")
            found["run"].add(program.name_of(int(run_at) & ~1))
            found["check"].add(program.name_of(int(check_at) & ~1))
    return found


def test_profile_gives_both(model: bdnet_deploy.Model) -> None:
    report = model.profile("cortex-m4")
    used, worst = report.facts["stack_bytes"], report.facts["stack_bound_bytes"]
    assert isinstance(used, int) and isinstance(worst, int) and used <= worst
    memory = {row["what"]: row for row in next(t for t in report.tables if t.key == "memory").rows}
    assert memory["stack"]["bytes"] == used and "this run" in str(memory["stack"]["meaning"])
    assert memory["  at most"]["bytes"] == worst and "linked image" in str(memory["  at most"]["meaning"])
    bounds = {row["function"]: row for row in next(t for t in report.tables if t.key == "worst_case_stack").rows}
    assert bounds["bd_reset"]["bytes"] == worst
    steps = [part.rpartition(" ") for part in str(bounds["bd_run"]["path"]).split(" > ")]
    assert steps[0][0] == "bd_run" and sum(int(size) for _, _, size in steps) == bounds["bd_run"]["bytes"]


def test_profile_says_why_there_is_no_bound(model: bdnet_deploy.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from bdnet_deploy.analysis import stack

    def unknown(path: Path) -> StackReport:
        return StackReport({}, {"bd_reset": ["recursion: f -> f"]}, [["f", "f"]], {}, {})

    monkeypatch.setattr(stack, "analyse_stack", unknown)
    report = model.profile("cortex-m4")
    assert report.facts["stack_bound_bytes"] is None and report.facts["stack_bytes"]
    assert "recursion: f -> f" in "".join(next(t for t in report.tables if t.key == "memory").notes)


# -- programs whose frames are known -----------------------------------------------------------------------------


def image_of(folder: Path, core: str, code: str, assembly: str = "") -> Path:
    (folder / "main.c").write_text(code, encoding="utf-8")
    (folder / "more.S").write_text(FUNCTION + assembly, encoding="utf-8")
    build_image(targets.core(core), [folder / "main.c", folder / "more.S"], folder / "main.elf")
    return folder / "main.elf"


FUNCTION = """
.syntax unified
.thumb
.macro FUNCTION name
.section .text.\\name, "ax", %progbits
.balign 4
.global \\name
.type \\name, %function
.thumb_func
\\name:
.endm
"""

CHAIN = """
FUNCTION top                @ 16 + 48, calls at both depths; the tail call is made with nothing held
    push {r4, r5, r6, lr}
    bl low                  @ 16 + 4
    sub sp, #48
    bl middle
    add sp, #48
    pop {r4, r5, r6}
    pop {r3}
    mov lr, r3
    b wide                  @ 0 + 1000
.size top, . - top
FUNCTION middle             @ 8 + 512
    push {r4, lr}
    ldr r4, =-512
    add sp, r4
    movs r0, #1
    str r0, [sp]            @ the deepest word: painted stack sees all of it
    movs r4, #128
    lsls r4, r4, #2
    add sp, r4
    pop {r4, pc}
    .ltorg
.size middle, . - middle
FUNCTION low
    push {r7}
    pop {r7}
    bx lr
.size low, . - low
FUNCTION wide               @ no more than top and middle: the heaviest path is not the largest frame
    sub sp, #500
    add sp, #500
    bx lr
.size wide, . - wide
"""


@pytest.mark.parametrize("core", CORES)
def test_a_chain_of_known_frames(core: str, tmp_path: Path) -> None:
    from bdnet_deploy.emulator import Emulator

    code = "void top(void);\nint main(void) {\n    top();\n    return 3;\n}\n"
    path = image_of(tmp_path, core, code, CHAIN)
    report = analyse_stack(path, ["top", "middle", "low", "wide", "bd_reset"])
    assert report.frames["top"] == 64 and report.frames["middle"] == 520
    assert [report.bound(name).bytes for name in ("top", "middle", "low", "wide")] == [584, 520, 4, 500]
    assert [(s.function, s.bytes) for s in report.bound("top").path] == [("top", 64), ("middle", 520)]
    assert report.calls["top"] == ["low", "middle", "wide"]
    from bdnet_deploy.toolchain.image import read_image

    with Emulator(read_image(path), targets.core(core)) as emulator:
        result = emulator.run()
    assert result.exit_code == 3
    assert result.stack_high_water == report.bound("bd_reset").bytes  # this program writes the last byte


def test_a_tail_call_counts_at_the_depth_that_is_left(tmp_path: Path) -> None:
    tail = CHAIN.replace("sub sp, #500", "sub sp, #508\n    sub sp, #508").replace(
        "add sp, #500", "add sp, #508\n    add sp, #508"
    )
    path = image_of(
        tmp_path, "cortex-m0plus", "void top(void);\nint main(void) {\n    top();\n    return 3;\n}\n", tail
    )
    report = analyse_stack(path, ["top"])
    assert [(s.function, s.bytes) for s in report.bound("top").path] == [("top", 0), ("wide", 1016)]


SWITCH = """
volatile int v;
#define HOLDS(name, n) __attribute__((noinline)) int name(void) { volatile char b[n]; b[v] = 1; return b[v + 1]; }
HOLDS(a0, 16) HOLDS(a1, 32) HOLDS(a2, 400) HOLDS(a3, 64) HOLDS(a4, 48)
__attribute__((noinline)) int pick(int x) {
    switch (x) {
    case 0: return a0() + 1;
    case 1: return a1() + 3;
    case 2: return a2() * 5;
    case 3: return a3() - 1;
    case 4: return a4() ^ 3;
    default: return -1;
    }
}
int main(void) { return pick(v); }
"""


@pytest.mark.parametrize("core", CORES)
def test_every_case_of_a_jump_table_is_followed(core: str, tmp_path: Path) -> None:
    path = image_of(tmp_path, core, SWITCH)
    report = analyse_stack(path, ["pick", "a2"])
    assert report.calls["pick"] == ["a0", "a1", "a2", "a3", "a4"]
    assert report.bound("pick").bytes == report.frames["pick"] + report.bound("a2").bytes
    assert report.bound("a2").bytes >= 400


@pytest.mark.parametrize("cpu", ["cortex-m0plus", "cortex-m4"])
def test_jump_tables_of_gcc(cpu: str, tmp_path: Path) -> None:
    """-Os for Armv6-M: through ``__gnu_thumb1_case_uqi``."""
    (tmp_path / "main.c").write_text(SWITCH, encoding="utf-8")
    path, usage = build_gnu(tmp_path, cpu, "-Os", [tmp_path / "main.c"])
    report = analyse_stack(path, ["pick"])
    called = [name for name in report.calls["pick"] if name != "__gnu_thumb1_case_uqi"]
    assert called == ["a0", "a1", "a2", "a3", "a4"]
    assert (len(report.calls["pick"]) == 6) == (cpu == "cortex-m0plus")
    assert report.bound("pick").bytes == usage["pick"] + usage["a2"]


VENEER = """
FUNCTION veneer             @ as a linker makes it for Armv6-M: a jump to an address in no register
    push {r0, r1}
    ldr r0, 1f
    str r0, [sp, #4]
    pop {r0, pc}
    .balign 4
1:  .word far
.size veneer, . - veneer
FUNCTION far
    push {r4, lr}
    sub sp, #32
    add sp, #32
    pop {r4, pc}
.size far, . - far
FUNCTION aligned            @ locals aligned to 32 bytes: up to 28 more than 8 + 64
    push {r7, lr}
    add r7, sp, #0
    sub sp, #64
    mov r0, sp
    lsrs r0, r0, #5
    lsls r0, r0, #5
    mov sp, r0
    bl far
    mov sp, r7
    pop {r7, pc}
.size aligned, . - aligned
FUNCTION stops              @ what follows a call that never returns is not code
    push {r4, lr}
    bl forever
    .word 0xb0ffb0ff
.size stops, . - stops
FUNCTION forever
    b .
.size forever, . - forever
"""


def test_veneers_alignment_and_calls_that_do_not_return(tmp_path: Path) -> None:
    code = "void veneer(void);\nvoid aligned(void);\nvoid stops(void);\n"
    code += "int main(void) {\n    veneer();\n    aligned();\n    stops();\n    return 0;\n}\n"
    report = analyse_stack(image_of(tmp_path, "cortex-m0plus", code, VENEER), ["veneer", "aligned", "stops"])
    assert report.calls["veneer"] == ["far"]
    assert {name: bound.bytes for name, bound in report.bounds.items()} == {"veneer": 40, "aligned": 140, "stops": 8}


# -- what has no bound -------------------------------------------------------------------------------------------


def test_recursion_is_found(tmp_path: Path) -> None:
    code = (
        "volatile int v;\nint odd(int n);\n"
        "__attribute__((noinline)) int even(int n) { return n == 0 ? 1 : odd(n - 1) + v; }\n"
        "__attribute__((noinline)) int odd(int n) { return n == 0 ? 0 : even(n - 1) - v; }\n"
        "__attribute__((noinline)) int flat(void) { return v; }\nint main(void) { return even(v) + flat(); }\n"
    )
    report = analyse_stack(image_of(tmp_path, "cortex-m4", code), ["main", "flat"])
    assert [set(cycle) for cycle in report.cycles] == [{"even", "odd"}]
    assert report.bound("flat").bytes == 0  # what does not recurse has its bound
    with pytest.raises(StackError, match=r"recursion: (even -> odd -> even|odd -> even -> odd)"):
        report.bound("main")


POINTER = """
volatile int v;
__attribute__((noinline)) int small(void) { return v; }
__attribute__((noinline)) int large(void) { volatile char b[200]; b[1] = 1; return b[v]; }
int (*volatile handler)(void) = small;
__attribute__((noinline)) int dispatch(void) { return handler() + 1; }
static int (*const table[])(void) = {small, large};
__attribute__((noinline)) int known(void) { int (*f)(void) = table[1]; __asm__("" : "+r"(v)); return f() + 1; }
int main(void) { handler = large; return dispatch() + known(); }
"""


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_an_unknown_call_is_an_error_until_it_is_described(core: str, tmp_path: Path) -> None:
    path = image_of(tmp_path, core, POINTER.replace('__asm__("" : "+r"(v)); ', ""))
    with pytest.raises(StackError, match="dispatch calls through a pointer at 0x"):
        analyse_stack(path).bound("main")
    report = analyse_stack(path, indirect={"dispatch": ["small", "large"]})
    assert report.calls["dispatch"] == ["large", "small"]
    assert report.bound("main").bytes >= report.frames["dispatch"] + report.frames["large"]
    with pytest.raises(errors.UsageError, match="large"):
        analyse_stack(path, indirect={"dispatch": ["larger"]})
    with pytest.raises(errors.UsageError, match="dispatch"):
        analyse_stack(path, ["dispatcher"])


STRANGE = {
    "mov pc, r0": "calls through a pointer",
    "msr msp, r0": "stack pointer is unknown",
    "mov sp, r0": "stack pointer is unknown",
    "cmp r0, #0\n    beq 1f\n    push {r4}\n1:  b 1b": "paths meet with",
    "push {r4}\n    bx lr": "4 bytes left",
    "push {r0, lr}\n    str r1, [sp, #4]\n    pop {r0, pc}": "calls through a pointer",
    "add sp, #8": "rises above",
    "nop": "control runs into data",
}


@pytest.mark.parametrize("code", STRANGE)
def test_code_that_cannot_be_followed_is_an_error(code: str, tmp_path: Path) -> None:
    assembly = f"FUNCTION strange\n    {code}\n    .balign 4\n    .word 0x12345678\n.size strange, . - strange\n"
    main = "void strange(void);\nint main(void) {\n    strange();\n    return 0;\n}\n"
    report = analyse_stack(image_of(tmp_path, "cortex-m0plus", main, assembly), ["strange"])
    with pytest.raises(StackError, match=STRANGE[code]):
        report.bound("strange")


def test_what_is_no_cortex_m_image(tmp_path: Path) -> None:
    (tmp_path / "text.elf").write_text("no ELF", encoding="utf-8")
    with pytest.raises(errors.ModelFileError, match="not a readable ELF"):
        analyse_stack(tmp_path / "text.elf")
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    build_image(targets.core("cortex-a72"), [tmp_path / "main.c"], tmp_path / "linux.elf")
    with pytest.raises(errors.ModelFileError, match="not a program for a Cortex-M"):
        analyse_stack(tmp_path / "linux.elf")
