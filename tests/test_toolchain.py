"""Images: sizes, determinism, cache, errors; UF2 and the RP2040's second-stage boot against independent readings of their formats."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from bdnet_deploy import errors, targets
from bdnet_deploy.toolchain import Image, boot2, build_image, version, zig
from bdnet_deploy.toolchain.cache import cache_dir
from bdnet_deploy.toolchain.uf2 import write_uf2

for _package in ("ziglang", "elftools"):
    pytest.importorskip(_package)

HELLO = """
#include "hello.h"
#include "port.h"
uint8_t zeros[SIZE];
uint32_t values[4] = {1, 2, 3, 4};
const char *file(void) { return __FILE__; }
int main(void)
{
    port_print(file());
    zeros[values[0]] = 1;
    return zeros[1];
}
"""


def make(folder: Path, size: int = 64) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hello.c").write_text(HELLO, encoding="utf-8")
    (folder / "hello.h").write_text(f"#define SIZE {size}\n", encoding="utf-8")
    return folder / "hello.c"


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("pico")
    return build_image(targets.board("pico"), [make(folder)], folder / "hello.elf")


def test_version_names_zig_and_clang() -> None:
    assert version().startswith("zig ")
    assert "clang" in version()


@pytest.mark.parametrize("name", targets.cores())
def test_sizes(name: str, tmp_path: Path) -> None:
    core = targets.core(name)
    small = build_image(core, [make(tmp_path / "small")], tmp_path / "small.elf")
    large = build_image(core, [make(tmp_path / "large", 64 + 4096)], tmp_path / "large.elf")
    assert large.ram_bytes - small.ram_bytes == 4096
    assert large.flash_bytes == small.flash_bytes
    assert small.flash_bytes == sum(small.sections[s] for s in (".text", ".rodata", ".data"))
    assert small.ram_bytes >= 64 + 16
    assert small.symbols["zeros"].size == 64
    assert small.symbols["main"].function
    assert "memcpy" not in small.symbols  # unused: dropped by the linker
    assert small.stack_reserve == (0 if core.is_linux else 4096)


def test_the_same_input_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    core = targets.core("cortex-m4")
    options = [*zig.target_flags(core), *zig.COMMON_FLAGS]
    common = targets.board("pico").folder.parent.parent / "common"
    built = []
    for folder in (tmp_path / "a", tmp_path / "somewhere" / "else"):
        source = make(folder)
        zig._compile(source.resolve(), folder / "hello.o", options, [common])  # past the cache
        built.append((folder / "hello.o").read_bytes())
    assert built[0] == built[1]
    images = [build_image(core, [make(tmp_path / name)], tmp_path / name / "x.elf") for name in ("b", "c")]
    assert images[0].sha256 == images[1].sha256
    assert str(tmp_path).encode() not in images[0].path.read_bytes()
    assert str(Path.home()).encode() + b"/" not in images[0].path.read_bytes()


def test_the_second_build_compiles_nothing_and_a_new_header_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = targets.core("cortex-m0plus")
    source = make(tmp_path, 100)
    build_image(core, [source], tmp_path / "a.elf")
    compiled: list[str] = []
    compile_one = zig._compile

    def spy(source: Path, *rest: object) -> None:
        compiled.append(source.name)
        compile_one(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(zig, "_compile", spy)
    build_image(core, [source], tmp_path / "a.elf")
    assert compiled == []
    make(tmp_path, 100 + len(str(tmp_path)) + tmp_path.stat().st_ino % 1000)
    build_image(core, [source], tmp_path / "a.elf")
    assert compiled in (["hello.c"], [])  # the object of that size may be there from an earlier test run
    fresh = zig.compile_objects([source], core, includes=[tmp_path, _common()])
    make(tmp_path, 101)
    assert zig.compile_objects([source], core, includes=[tmp_path, _common()]) != fresh


def _common() -> Path:
    return targets.board("pico").folder.parent.parent / "common"


def test_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BDNET_DEPLOY_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("BDNET_DEPLOY_CACHE")
    assert cache_dir().name == "bdnet-deploy"


def test_errors_say_what_and_where(tmp_path: Path) -> None:
    core = targets.core("cortex-m4")
    bad = tmp_path / "bad.c"
    bad.write_text("int main(void) { return nothing; }\n", encoding="utf-8")
    with pytest.raises(errors.BdnetError, match="undeclared identifier 'nothing'") as caught:
        build_image(core, [bad], tmp_path / "bad.elf")
    assert caught.value.where == str(bad.resolve())
    with pytest.raises(errors.BdnetError, match="does not exist"):
        build_image(core, [tmp_path / "absent.c"], tmp_path / "bad.elf")
    bad.write_text("int absent(void); int main(void) { return absent(); }\n", encoding="utf-8")
    with pytest.raises(errors.BdnetError, match="undefined symbol: absent"):
        build_image(core, [bad], tmp_path / "bad.elf")
    with pytest.raises(errors.UsageError, match="has no port 'uart'"):
        build_image(core, [bad], tmp_path / "bad.elf", port="uart")
    with pytest.raises(errors.UsageError, match="unknown port"):
        build_image(core, [bad], tmp_path / "bad.elf", port="usb")
    assert not (tmp_path / "bad.elf").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.c"]


@pytest.mark.parametrize(
    "code",
    ["char big[300000]; int main(void) { return big[5]; }", "char big[266000]; int main(void) { return big[5]; }"],
    ids=["ram", "stack"],
)
def test_what_does_not_fit_the_board_is_refused(code: str, tmp_path: Path) -> None:
    source = tmp_path / "big.c"
    source.write_text(code.replace("return", "big[7] = 1; return (int)").replace("big[5]", "*(volatile char *)&big[5]"))
    with pytest.raises(errors.DoesNotFitError) as caught:
        build_image(targets.board("pico"), [source], tmp_path / "big.elf", stack_bytes=8192)
    assert caught.value.exit_code == 3


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ziglang", None)
    zig.version.cache_clear()
    with pytest.raises(errors.MissingPackageError, match=r"bdnet-deploy\[emulate\]"):
        build_image(targets.core("cortex-m4"), [make(tmp_path)], tmp_path / "x.elf")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(errors.UsageError, match="cortex-m4"):
        targets.core("cortex-m44")
    with pytest.raises(errors.UsageError, match="pico"):
        targets.board("pcio")


def test_crc_of_the_second_stage_boot() -> None:
    # The check value of CRC-32/MPEG-2 in the catalogue of parametrised CRC algorithms (reveng).
    assert boot2.crc32(b"123456789") == 0x0376E6E7
    data = boot2.boot2_bytes(targets.board("pico"))
    assert len(data) == 256
    assert boot2.crc32(data[:252]) == int.from_bytes(data[252:], "little")
    # A CRC without final XOR over data and checksum, most significant byte first, leaves zero.
    assert boot2.crc32(data[:252] + data[252:][::-1]) == 0


@pytest.mark.parametrize("base", [0x20041F00, 0x20000400])
def test_the_second_stage_boot_runs_anywhere_and_starts_the_image(base: int, pico: Image) -> None:
    unicorn = pytest.importorskip("unicorn")
    arm = pytest.importorskip("unicorn.arm_const")
    uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    uc.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M0)
    uc.mem_map(0x20000000, 0x42000)
    uc.mem_map(0x10000000, 0x200000)
    writes: list[tuple[int, int]] = []
    for page in (0x18000000, 0xE000E000):
        uc.mmio_map(page, 0x1000, None, None, lambda uc, at, size, value, page: writes.append((page + at, value)), page)
    uc.mem_write(base, boot2.boot2_bytes(targets.board("pico")))
    reset, top = pico.symbols["bd_reset"].address, pico.symbols["bd_stack_top"].address
    uc.mem_write(0x10000100, struct.pack("<2I", top, reset | 1))
    uc.reg_write(arm.UC_ARM_REG_SP, 0x20041F00)
    uc.reg_write(arm.UC_ARM_REG_LR, 0)
    uc.emu_start(base | 1, reset, count=200)
    assert uc.reg_read(arm.UC_ARM_REG_PC) == reset
    assert uc.reg_read(arm.UC_ARM_REG_SP) == top
    assert writes == [
        (0x18000008, 0),  # SSI off
        (0x18000014, 2),  # divider
        (0x18000000, 0x001F0300),  # 32-bit frames, EEPROM read
        (0x18000004, 0),  # one frame
        (0x180000F4, 0x03000218),  # 03h, 8 + 24 bits, serial
        (0x18000008, 1),  # SSI on
        (0xE000ED08, 0x10000100),  # vector table
    ]


def test_the_pico_image_starts_with_boot_and_vectors(pico: Image) -> None:
    assert pico.sections[".boot2"] == 256
    assert pico.symbols["bd_vectors"].address == 0x10000100
    assert pico.symbols["bd_stack_top"].address == 0x20042000


def test_uf2_against_an_independent_reading(pico: Image, tmp_path: Path) -> None:
    from elftools.elf.elffile import ELFFile

    out = tmp_path / "hello.uf2"
    blocks = write_uf2(pico.path, out, "RP2040")
    data = out.read_bytes()
    assert len(data) == 512 * blocks
    memory: dict[int, int] = {}
    last = -1
    for number in range(blocks):
        block = data[512 * number : 512 * number + 512]
        assert block[:8] == b"UF2\n\x57\x51\x5d\x9e"
        assert block[-4:] == b"\x30\x6f\xb1\x0a"
        flags, address, size, index, total, family = struct.unpack_from("<6I", block, 8)
        assert (flags, size, index, total, family) == (0x2000, 256, number, blocks, 0xE48BFF56)
        assert address % 256 == 0 and address > last
        last = address
        memory |= {address + i: block[32 + i] for i in range(256)}
    with pico.path.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments():
            if segment["p_type"] == "PT_LOAD":
                for i, byte in enumerate(segment.data()):
                    assert memory[segment["p_paddr"] + i] == byte
    assert bytes(memory[0x10000000 + i] for i in range(256)) == boot2.boot2_bytes(targets.board("pico"))
    assert write_uf2(pico.path, tmp_path / "again.uf2", "RP2040") == blocks
    assert (tmp_path / "again.uf2").read_bytes() == data
    with pytest.raises(errors.UsageError, match="RP2040"):
        write_uf2(pico.path, out, "RP2400")
