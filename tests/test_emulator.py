"""The same small program on every core: results, exact counts, stack, faults; against hand counts, numpy and QEMU."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from bdnet_deploy import errors, targets
from bdnet_deploy.emulator import Emulator, EmulatorFault, qemu
from bdnet_deploy.emulator.cycles import classify
from bdnet_deploy.toolchain import Image, build_image

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

# A core that only QEMU emulates needs it.
CORES = tuple(
    name for name in targets.cores() if targets.core(name).engine != "qemu" or qemu.available(targets.core(name))
)

# The first byte of a command says what to do; every answer has a fixed length.
PROGRAM = r"""
#include "port.h"

uint32_t counted_loop(uint32_t n);
uint32_t measured(uint32_t region, uint32_t n);
void stack_small(void);
void stack_large(void);
void undefined_instruction(void);

volatile float a, b;
volatile uint64_t q, z;
uint8_t scratch[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint32_t constant = 7;

static void read_all(void *to, uint32_t n)
{
    uint8_t *at = to;
    while (n != 0) {
        int32_t got = port_read(at, n);
        if (got <= 0) {
            port_exit(scratch[4]);
        }
        at += got;
        n -= (uint32_t)got;
    }
}

__attribute__((noinline)) void bad_read(void)
{
    (void)*(volatile uint32_t *)(uintptr_t)0x90000004u;
}

__attribute__((noinline)) uint32_t peek(uint32_t address)
{
    return *(volatile uint32_t *)(uintptr_t)address;
}

__attribute__((noinline)) void bad_write(void)
{
    *(volatile uint32_t *)(uintptr_t)&constant = 1;
}

int main(void)
{
    for (;;) {
        uint8_t command;
        uint32_t arg[4];
        float f[4];
        read_all(&command, 1);
        switch (command) {
        case 'e':
            read_all(arg, 16);
            port_write(arg, 16);
            break;
        case 'f':
            read_all(arg, 8);
            __builtin_memcpy(f, arg, 8);
            a = f[0];
            b = f[1];
            f[0] = a + b;
            f[1] = a * b;
            f[2] = a / b;
            f[3] = a * b + a;
            port_write(f, 16);
            break;
        case 'd':
            read_all(arg, 16);
            q = arg[0] | (uint64_t)arg[1] << 32;
            z = arg[2] | (uint64_t)arg[3] << 32;
            q /= z;
            port_write((const void *)(uintptr_t)&q, 8);
            break;
        case 'l':
            read_all(arg, 8);
            arg[0] = measured(arg[0], arg[1]);
            port_write(arg, 4);
            break;
        case 's':
            stack_small();
            port_print("s");
            break;
        case 'S':
            stack_large();
            port_print("S");
            break;
        case 'r':
            bad_read();
            break;
        case 'p':
            read_all(arg, 4);
            arg[0] = peek(arg[0]);
            port_write(arg, 4);
            break;
        case 'w':
            bad_write();
            break;
        case 'u':
            undefined_instruction();
            break;
        case 'h':
            for (;;) {
                q++;
            }
        case 'x':
            read_all(arg, 4);
            return (int)arg[0];
        default:
            port_print("?");
        }
    }
}
"""

ASSEMBLY = r"""
#if defined(__aarch64__)
#define FUNCTION(name) .text; .global name; .type name, %function; name:
FUNCTION(counted_loop)
    subs w0, w0, #1
    b.ne counted_loop
    ret
FUNCTION(bd_step_enter)
    ret
FUNCTION(bd_step_leave)
    ret
FUNCTION(measured)
    stp x19, x30, [sp, #-16]!
    mov w19, w1
    bl bd_step_enter
    mov w0, w19
    bl counted_loop
    bl bd_step_leave
    ldp x19, x30, [sp], #16
    ret
FUNCTION(stack_small)
    sub sp, sp, #1024
    str xzr, [sp]
    add sp, sp, #1024
    ret
FUNCTION(stack_large)
    sub sp, sp, #2048
    str xzr, [sp]
    add sp, sp, #2048
    ret
FUNCTION(undefined_instruction)
    udf #0
#else
    .syntax unified
#if defined(__thumb__)
    .thumb
#define FUNCTION(name) .text; .global name; .type name, %function; .thumb_func; name:
#else
    .arm
#define FUNCTION(name) .text; .global name; .type name, %function; name:
#endif
FUNCTION(counted_loop)
    subs r0, r0, #1
    bne counted_loop
    bx lr
FUNCTION(bd_step_enter)
    bx lr
FUNCTION(bd_step_leave)
    bx lr
FUNCTION(measured)
    push {r4, lr}
    mov r4, r1
    bl bd_step_enter
    mov r0, r4
    bl counted_loop
    bl bd_step_leave
    pop {r4, pc}
FUNCTION(stack_small)
    sub sp, #508
    sub sp, #508
    sub sp, #8
    str r0, [sp]
    add sp, #508
    add sp, #508
    add sp, #8
    bx lr
FUNCTION(stack_large)
    sub sp, #508
    sub sp, #508
    sub sp, #508
    sub sp, #508
    sub sp, #16
    str r0, [sp]
    add sp, #508
    add sp, #508
    add sp, #508
    add sp, #508
    add sp, #16
    bx lr
FUNCTION(undefined_instruction)
    udf #0
#endif
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("program")
    (folder / "program.c").write_text(PROGRAM, encoding="utf-8")
    (folder / "counted.S").write_text(ASSEMBLY, encoding="utf-8")
    return [folder / "program.c", folder / "counted.S"]


@pytest.fixture(scope="module")
def images(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    folder = tmp_path_factory.mktemp("images")
    return {name: build_image(targets.core(name), sources, folder / f"{name}.elf") for name in CORES}


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def test_every_core_is_described() -> None:
    assert set(CORES) >= {"cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-a72"}
    for name in CORES:
        core = targets.core(name)
        assert core.description and core.validation.status
        assert bool(core.memories) != core.is_linux
        assert not core.timing or "default" in core.timing


@pytest.mark.parametrize("name", CORES)
def test_thousands_of_commands_without_a_restart(name: str, images: dict[str, Image]) -> None:
    rng = np.random.default_rng(7)
    with Emulator(images[name], targets.core(name)) as emulator:
        assert emulator.run().stopped == "input"
        for _ in range(200):
            data = rng.bytes(16)
            emulator.send(b"e" + data[:5])
            assert emulator.run().output == b""  # the program waits in the middle of a command
            emulator.send(data[5:])
            result = emulator.run(until_output=16)
            assert result.output == data
            assert result.stopped == "output"
        emulator.send(b"x" + u32(42))
        result = emulator.run()
        assert (result.stopped, result.exit_code) == ("exit", 42)
        assert emulator.run().exit_code == 42


@pytest.mark.parametrize("name", CORES)
def test_floats_and_64_bit_division(name: str, images: dict[str, Image]) -> None:
    rng = np.random.default_rng(11)
    with Emulator(images[name], targets.core(name)) as emulator:
        for _ in range(20):
            a, b = rng.standard_normal(2).astype(np.float32)
            emulator.send(b"f" + struct.pack("<2f", a, b))
            expected = np.array([a + b, a * b, a / b, a * b + a], np.float32)
            assert emulator.run().output == expected.tobytes()
            q, z = int(rng.integers(1 << 62)), int(rng.integers(1, 1 << 40))
            emulator.send(b"d" + struct.pack("<2Q", q, z))
            assert emulator.run().output == struct.pack("<Q", q // z)


def test_the_fpu_is_used_where_there_is_one(images: dict[str, Image]) -> None:
    for name in CORES:
        soft = "__aeabi_fmul" in images[name].symbols
        assert soft is not targets.core(name).has_fpu


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("turns", [1, 7, 1000])
def test_regions_and_functions_count_exactly(name: str, turns: int, images: dict[str, Image]) -> None:
    core = targets.core(name)
    with Emulator(images[name], core) as emulator:
        emulator.run()
        emulator.send(b"l" + u32(3, turns) + b"l" + u32(5, 2 * turns))
        result = emulator.run(count=True)
    assert result.output == u32(0, 0)
    # mov, bl; the loop and its return; bl to the end marker, whose own return still counts for the step
    assert result.by_region[3].instructions == 2 + (2 * turns + 1) + 2
    assert result.by_region[5].instructions == 2 + (4 * turns + 1) + 2
    assert set(result.by_region) == {3, 5}
    assert result.by_function["counted_loop"] == 6 * turns + 2
    assert result.by_region[3].by_function["counted_loop"] == 2 * turns + 1
    assert result.instructions is not None and result.overhead is not None and result.counts is not None
    regions = sum(region.instructions for region in result.by_region.values())
    assert regions + result.overhead.instructions == result.instructions
    assert sum(result.by_function.values()) == sum(result.counts.classes.values()) == result.instructions
    # Taken: into the step by enter's return, the loop's turns, bl and bx of the loop, bl of leave. Leave's own
    # return is counted where it arrives, outside.
    step = result.by_region[3].counts
    assert step.taken_branches == 1 + 1 + (turns - 1) + 1 + 1
    if core.timing:
        branch, call = core.timing["branch_taken"], core.timing.get("call", 1)
        expected = 1 + 2 * call + 2 * turns + 2 + step.taken_branches * branch
        assert result.by_region[3].cycles == expected
    else:
        assert result.cycles is None


@pytest.mark.parametrize("name", CORES)
def test_a_run_in_pieces_counts_like_one_run(name: str, images: dict[str, Image]) -> None:
    # Each piece is what one read of the program asks for.
    pieces = [b"l", u32(1, 50), b"e", bytes(16), b"d", struct.pack("<2Q", 10**15, 12345), b"x", u32(0)]
    core = targets.core(name)
    with Emulator(images[name], core, stdin=b"".join(pieces)) as emulator:
        whole = emulator.run(count=True)
    with Emulator(images[name], core) as emulator:
        parts = [emulator.run(count=True)]
        for piece in pieces:
            emulator.send(piece)
            parts.append(emulator.run(count=True))
    assert [part.stopped for part in parts] == ["input"] * len(pieces) + ["exit"]
    assert sum(part.instructions or 0 for part in parts) == whole.instructions
    assert sum(part.counts.taken_branches for part in parts if part.counts) == whole.counts.taken_branches
    with Emulator(images[name], core) as emulator:  # runs without counting in between change nothing
        emulator.run()
        emulator.send(pieces[0])
        emulator.run()
        emulator.send(pieces[1])
        assert emulator.run(count=True).by_function == parts[2].by_function


@pytest.mark.parametrize("name", CORES)
def test_stopping_anywhere_loses_no_count(name: str, images: dict[str, Image]) -> None:
    core = targets.core(name)
    commands = b"l" + u32(3, 40) + b"d" + struct.pack("<2Q", 10**15, 12345)
    with Emulator(images[name], core, stdin=commands) as emulator:
        whole = emulator.run(count=True)
    for limit in (3, 100):
        with Emulator(images[name], core, stdin=commands) as emulator:
            parts = [emulator.run(count=True, max_instructions=limit)]
            while parts[-1].stopped == "limit":
                assert parts[-1].instructions is not None
                # The limit leaves out instructions that an IT block skips; Armv6-M and AArch64 have none.
                assert parts[-1].instructions >= limit
                assert parts[-1].instructions == limit or core.isa not in ("armv6-m", "armv8-a")
                parts.append(emulator.run(count=True, max_instructions=limit))
        assert b"".join(part.output for part in parts) == whole.output
        assert sum(part.instructions or 0 for part in parts) == whole.instructions
        for function, instructions in whole.by_function.items():
            assert sum(part.by_function.get(function, 0) for part in parts) == instructions


@pytest.mark.parametrize("name", CORES)
def test_stack_high_water(name: str, images: dict[str, Image]) -> None:
    with Emulator(images[name], targets.core(name)) as emulator:
        before = emulator.run().stack_high_water
        emulator.send(b"s")
        small = emulator.run().stack_high_water
        emulator.send(b"S")
        large = emulator.run().stack_high_water
    assert 0 < before < 512
    assert large - small == 1024
    assert 1024 < small < 1024 + 512


@pytest.mark.parametrize("name", CORES)
def test_faults_name_the_function(name: str, images: dict[str, Image]) -> None:
    core = targets.core(name)
    for command, function, address in ((b"r", "bad_read", 0x90000004), (b"w", "bad_write", None), (b"u", None, None)):
        if core.engine == "qemu" and command != b"u":
            continue  # the machine has memory at both
        with Emulator(images[name], core, stdin=command) as emulator:
            with pytest.raises(EmulatorFault) as caught:
                emulator.run()
            fault = caught.value
            assert fault.function == (function or "undefined_instruction")
            if address is not None:
                assert fault.address == address
            assert fault.function in str(fault)


def test_an_endless_loop_is_ended(images: dict[str, Image]) -> None:
    emulator = Emulator(images["cortex-m4"], targets.core("cortex-m4"), stdin=b"h")
    process = emulator._process
    assert process is not None
    with pytest.raises(errors.BdnetError, match=r"did not finish in 0\.5 seconds"):
        emulator.run(timeout_s=0.5)
    assert process.poll() is not None  # reaped: no zombie
    with pytest.raises(errors.BdnetError, match="closed"):
        emulator.run()


def test_closing_in_the_middle_ends_the_process(images: dict[str, Image]) -> None:
    with Emulator(images["cortex-m4"], targets.core("cortex-m4")) as emulator:
        process = emulator._process
        emulator.run()
    assert process is not None and process.poll() == 0


def test_end_of_input(images: dict[str, Image]) -> None:
    with Emulator(images["cortex-a72"], targets.core("cortex-a72")) as emulator:
        assert emulator.run().stopped == "input"
        emulator.close_input()
        assert emulator.run().exit_code == 5  # scratch[4]


@pytest.mark.parametrize("name", CORES)
def test_memory_by_symbol(name: str, images: dict[str, Image]) -> None:
    with Emulator(images[name], targets.core(name)) as emulator:
        emulator.run()
        assert emulator.read_memory("scratch", 16) == bytes(range(1, 17))
        emulator.write_memory("scratch", b"\0\0\0\0\x2a")
        emulator.close_input()
        assert emulator.run().exit_code == 42
        with pytest.raises(errors.UsageError, match="scratch"):
            emulator.read_memory("scrath", 1)


def test_an_image_for_another_core_is_refused(images: dict[str, Image]) -> None:
    with pytest.raises(errors.ModelFileError, match="not for cortex-m4"):
        Emulator(images["cortex-a72"], targets.core("cortex-m4"))


@pytest.mark.parametrize("name", targets.boards())
def test_boards_talk_through_their_uart(name: str, sources: list[Path], tmp_path: Path) -> None:
    board = targets.board(name)
    image = build_image(board, sources, tmp_path / "board.elf")
    with Emulator(image, board.core, board) as emulator:
        assert emulator.run().stopped == "input"
        for _ in range(3):
            emulator.send(b"e" + bytes(range(16)))
            assert emulator.run(count=True).output == bytes(range(16))
        emulator.send(b"x" + u32(0))
        assert emulator.run().stopped == "halt"
    # A register that board.toml does not list is not there: in the UART's own page and elsewhere.
    for address in (board.uart.base + 0xF00, 0x4FFF0000):
        with Emulator(image, board.core, board, stdin=b"p" + u32(address)) as emulator:
            with pytest.raises(EmulatorFault) as caught:
                emulator.run()
            assert caught.value.address == address
            assert caught.value.function == "peek"


ARENA = """
#include "port.h"
volatile uint8_t arena[SIZE] __attribute__((section(".arena"), aligned(16)));
volatile uint8_t kept[16] __attribute__((section(".noinit")));
int main(void)
{
    uint8_t byte;
    port_read(&byte, 1);
    arena[0] = byte;
    arena[SIZE - 1] = (uint8_t)(byte + 1);
    kept[0] = 1;
    return arena[0] + arena[SIZE - 1] + kept[0];
}
"""


@pytest.mark.parametrize("name", [*CORES, "pico"])
def test_the_arena_takes_ram_only_and_is_not_cleared(name: str, tmp_path: Path) -> None:
    board = targets.board(name) if name == "pico" else None
    core = board.core if board is not None else targets.core(name)
    size = 200_000 if board is not None else 12 << 20  # more than the first RAM of the MPS2 boards
    (tmp_path / "arena.c").write_text(ARENA, encoding="utf-8")
    port = "semihosting" if board is not None else None
    image = build_image(
        board or core, [tmp_path / "arena.c"], tmp_path / "arena.elf", defines={"SIZE": size}, port=port
    )
    assert image.sections[".arena"] >= size
    assert size <= image.ram_bytes < size + 4096
    assert image.flash_bytes < 4096
    assert image.path.stat().st_size < 300_000
    with Emulator(image, core, board) as emulator:
        assert emulator.run(count=True).instructions in range(10, 2000)
        emulator.send(b"\x10")
        assert emulator.run().exit_code == 0x10 + 0x11 + 1
    if board is None and qemu.available(core):
        assert qemu.run(image.path, core, b"\x10").exit_code == 0x10 + 0x11 + 1


def test_a_missing_emulator_package_is_named(
    images: dict[str, Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unicorn.py").write_text("raise ImportError('no unicorn here')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(errors.MissingPackageError, match="no unicorn here") as caught:
        Emulator(images["cortex-m4"], targets.core("cortex-m4"))
    assert "bdnet-deploy[emulate]" in str(caught.value)


@pytest.mark.parametrize("name", CORES)
def test_equal_to_qemu(name: str, images: dict[str, Image]) -> None:
    core = targets.core(name)
    if not qemu.available(core):
        pytest.skip(f"{qemu.program(core)} is not installed")
    commands = b"f" + struct.pack("<2f", 1.25, -3.3) + b"d" + struct.pack("<2Q", 10**17, 977) + b"l" + u32(0, 300)
    commands += b"e" + bytes(range(16)) + b"S" + b"x" + u32(17)
    with Emulator(images[name], core, stdin=commands) as emulator:
        ours = emulator.run(count=True)
    theirs = qemu.run(images[name].path, core, commands, count=True)
    assert theirs.output == ours.output
    assert theirs.exit_code == ours.exit_code == 17
    assert theirs.instructions == ours.instructions


@pytest.mark.parametrize("name", [name for name in CORES if not targets.core(name).is_linux])
def test_a_fault_exits_with_99_in_qemu(name: str, images: dict[str, Image]) -> None:
    core = targets.core(name)
    if not qemu.available(core):
        pytest.skip(f"{qemu.program(core)} is not installed")
    assert qemu.run(images[name].path, core, b"u").exit_code == 99


@pytest.mark.parametrize(
    ("text", "kind", "registers"),
    [
        ("ldr r0, [r1]", "load", 0),
        ("push.w {r4-r7, r8, lr}", "multiple", 6),
        ("ldm r0!, {r1, r2, r3}", "multiple", 3),
        ("vpush {d8, d9}", "multiple", 2),
        ("pop {r4, pc}", "multiple", 2),
        ("strd r0, r1, [sp]", "store_double", 0),
        ("bl #0x100", "call", 0),
        ("bics r0, r1", "other", 0),
        ("smlal r0, r1, r2, r3", "multiply_long", 0),
        ("vdiv.f32 s0, s1, s2", "float_divide", 0),
        ("mul r0, r1, r2", "multiply", 0),
        ("stmdb sp!, {sb, sl, fp}", "multiple", 3),
    ],
)
def test_instruction_classes(text: str, kind: str, registers: int) -> None:
    mnemonic, _, operands = text.partition(" ")
    found = classify(mnemonic, operands, False)
    assert (found.name, found.registers, found.writes_pc) == (kind, registers, "pc}" in text)
