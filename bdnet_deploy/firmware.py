"""Building the applications of ``firmware_examples`` around a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bdnet_deploy import resources, targets
from bdnet_deploy.errors import unknown_name
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.export.c import write_c
from bdnet_deploy.graph import Array
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.manifest import SUFFIX, Manifest, make_manifest
from bdnet_deploy.plan.kernels import kernel_names
from bdnet_deploy.plan.variants import switch, variant_sources
from bdnet_deploy.targets import Board, Core
from bdnet_deploy.toolchain import Image, build_image

#: Macros of the linked model are called ``BD_MODEL_...`` in every application.
MODEL_NAME = "bd_model"


def target(name: str) -> Core | Board:
    """The core or board of that name.

    Raises:
        UsageError: neither exists; the nearest names are given.
    """
    if name in targets.cores():
        return targets.core(name)
    if name in targets.boards():
        return targets.board(name)
    raise unknown_name("core or board", name, [*targets.cores(), *targets.boards()])


def core_of(where: Core | Board) -> Core:
    """The core itself, or the board's."""
    return where.core if isinstance(where, Board) else where


def runtime_sources(sets: Sequence[str] = ()) -> list[Path]:
    """Every C file of the runtime, with the variants of kernels for these sets of instructions; the linker drops what a
    model does not use."""
    runtime = resources.runtime_dir()
    generic = sorted([*(runtime / "src").glob("*.c"), *(runtime / "kernels" / "generic").glob("*.c")])
    return [*generic, *variant_sources(sets)]


def runtime_includes() -> list[Path]:
    runtime = resources.runtime_dir()
    return [runtime / "include", runtime / "src", runtime / "kernels"]


def build_runner(where: Core | Board, folder: Path, *, defines: Mapping[str, str | int | None] | None = None) -> Image:
    """The application ``runner`` with every kernel and no model: models arrive over its port.

    ``runner.manifest.json`` beside the ELF has the sizes of its buffers.
    """
    source = resources.firmware_dir() / "runner" / "main.c"
    image = build_image(
        where,
        [source, *runtime_sources()],
        folder / "runner.elf",
        includes=runtime_includes(),
        defines=dict(defines or {}),
        port=_stream_port(where),
    )
    manifest = Manifest(
        kernels=tuple(sorted(kernel_names())),
        arena_bytes={_pointer_bits(where): image.symbols["arena"].size},
        model_bytes=image.symbols["model_buffer"].size,
    )
    _write(folder / f"runner{SUFFIX}", manifest.to_json())
    return image


def build_with_model(
    application: str,
    lowered: Lowered,
    where: Core | Board,
    folder: Path,
    *,
    io: IODescription | None = None,
    sample: Array | None = None,
    files: Mapping[str, str] | None = None,
    defines: Mapping[str, str | int | None] | None = None,
    port: str | None = None,
    keep: Iterable[str] = (),
    reserve_arena: int = 0,
    reserve_model: int = 0,
) -> Image:
    """An application with a model linked in, and its manifest ``<application>.manifest.json`` beside the ELF.

    Args:
        application: a folder of ``firmware_examples`` with ``main.c``.
        lowered: the model.
        where: core or board.
        folder: where generated sources and the ELF ``<application>.elf`` go.
        io, sample: go into the model's file; see :func:`~bdnet_deploy.export.bdn.write_bdn`.
        files: further generated sources by file name.
        defines: macros.
        port: of :func:`~bdnet_deploy.toolchain.build_image`.
        keep, reserve_arena, reserve_model: for later models; see :func:`~bdnet_deploy.export.c.write_c`.
    """
    data = write_bdn(lowered.plan, io=io, sample=sample)
    keep = sorted(keep)
    source, header = write_c(
        lowered.plan,
        data,
        name=MODEL_NAME,
        io=io,
        keep=keep,
        reserve_arena=reserve_arena,
        reserve_model=reserve_model,
    )
    manifest = make_manifest(
        data, keep=keep, bits=[_pointer_bits(where)], reserve_arena=reserve_arena, reserve_model=reserve_model
    )
    _write(folder / f"{application}{SUFFIX}", manifest.to_json())
    generated = {f"{MODEL_NAME}.c": source, f"{MODEL_NAME}.h": header, **(files or {})}
    generated["model.h"] = f'#include "{MODEL_NAME}.h"\n'
    for name, text in generated.items():
        _write(folder / name, text)
    sources = [resources.firmware_dir() / application / "main.c"]
    sources += [folder / name for name in sorted(generated) if name.endswith(".c")]
    sets = core_of(where).sets
    return build_image(
        where,
        [*sources, *runtime_sources(sets)],
        folder / f"{application}.elf",
        includes=[folder, *runtime_includes()],
        defines={"BD_LINKED_MODEL": 1, **dict.fromkeys(map(switch, sets)), **(defines or {})},
        port=port,
    )


def build_digits(lowered: Lowered, where: Core | Board, folder: Path, images: Array, labels: Sequence[int]) -> Image:
    """The application ``digits``: the model, and test images as the model's input takes them (N, H, W, C)."""
    rows = ",\n    ".join("{" + ", ".join(str(int(v)) for v in image.reshape(-1)) + "}" for image in images)
    text = (
        "/* Written by bdnet-deploy: test images and what they show. */\n"
        "#ifndef IMAGES_H\n#define IMAGES_H\n\n"
        '#include "model.h"\n\n'
        f"#define BD_IMAGES {len(images)}\n"
        f"static const BD_MODEL_INPUT_TYPE bd_images[BD_IMAGES][BD_MODEL_INPUT_ELEMENTS] = {{\n    {rows}}};\n"
        f"static const uint8_t bd_image_labels[BD_IMAGES] = {{{', '.join(str(int(v)) for v in labels)}}};\n\n"
        "#endif\n"
    )
    return build_with_model("digits", lowered, where, folder, files={"images.h": text}, sample=images[:1])


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _pointer_bits(where: Core | Board) -> int:
    return core_of(where).pointer_bits


def _stream_port(where: Core | Board) -> str | None:
    """A port that carries bytes both ways without a UART's speed limit."""
    return None if core_of(where).is_linux else "semihosting"


@dataclass(frozen=True)
class Memory:
    """What a model needs on a target, in bytes, read from the linked image."""

    flash: int
    model: int
    code: int
    ram: int
    arena: int


def memory_of(image: Image) -> Memory:
    """Split the sizes of an image with a model. ``code`` is flash without the model; ``ram`` includes the arena, not the stack."""
    model = image.symbols[f"{MODEL_NAME}_data"].size
    arena = image.symbols["arena"].size
    return Memory(image.flash_bytes, model, image.flash_bytes - model, image.ram_bytes, arena)
