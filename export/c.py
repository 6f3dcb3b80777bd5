"""The ``.bdn`` bytes as a C array, with the kernel table that names only what the model uses, and a header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from bdnet_deploy import __version__
from bdnet_deploy.bdn_format import align
from bdnet_deploy.errors import DoesNotFitError, UsageError
from bdnet_deploy.graph import DType
from bdnet_deploy.iodesc import IODescription, describe_io
from bdnet_deploy.plan import Plan, PlanTensor
from bdnet_deploy.plan.variants import best_symbol

_C_TYPES = {
    DType.F32: "float",
    DType.U8: "uint8_t",
    DType.I8: "int8_t",
    DType.I16: "int16_t",
    DType.I32: "int32_t",
}
_WORDS_PER_LINE = 8
_LARGEST = 0xFFFFFFF0  # what 32 bits hold, as a multiple of 16


def c_identifier(name: str) -> str:
    """``name`` as a C identifier in lower case."""
    identifier = re.sub(r"\W", "_", name, flags=re.ASCII).lower()
    return identifier if identifier and not identifier[0].isdigit() else f"model_{identifier}"


def write_c(
    plan: Plan,
    data: bytes,
    *,
    name: str,
    io: IODescription | None = None,
    keep: Iterable[str] = (),
    reserve_arena: int = 0,
    reserve_model: int = 0,
) -> tuple[str, str]:
    """``(source, header)`` of a model.

    The header defines ``<NAME>_BYTES``, ``_RESERVED_BYTES``, ``_ARENA_BYTES``, ``_DATA``, ``_KERNELS``, where the input is
    pushed ``_INPUT_PUSHED``, and, per input and output, ``_TYPE``, ``_HEIGHT``, ``_WIDTH``, ``_CHANNELS``, ``_ELEMENTS``,
    ``_SCALE`` and ``_ZERO_POINT``.

    Args:
        plan: of the model.
        data: what :func:`~bdnet_deploy.export.bdn.write_bdn` made of it.
        name: prefix of the symbols; also the name of the header that the source includes.
        io: for comments and labels.
        keep: kernels that its table has besides the model's, for later models.
        reserve_arena, reserve_model: bytes for later models; 0: what this one needs.

    Raises:
        DoesNotFitError: a reserve is smaller than what the model itself needs.
    """
    symbol = c_identifier(name)
    arena = 16 * 4 + 32 + align(len(plan.kernels) * 4 + len(plan.steps) * 2) + plan.tensor_bytes + plan.scratch_bytes
    for option, reserve, needed in (
        ("--reserve-arena", reserve_arena, arena),
        ("--reserve-model", reserve_model, len(data)),
    ):
        if reserve > _LARGEST:
            raise UsageError(f"a reserve of {reserve:,} bytes is beyond 4 GiB", where=option, fix="a smaller reserve")
        if 0 < reserve < needed:
            raise DoesNotFitError(
                f"a reserve of {reserve:,} bytes is less than the {needed:,} that the model itself needs",
                where=option,
                fix=f"{option} {needed}",
            )
    source = _source(symbol, data, plan, sorted(set(keep) - set(plan.kernels)))
    return source, _header(symbol, data, plan, io, align(reserve_arena), max(len(data), align(reserve_model)))


def _source(symbol: str, data: bytes, plan: Plan, kept: list[str]) -> str:
    words = np.frombuffer(data, "<u4")  # files are padded to 16 bytes
    lines = [
        ", ".join(f"0x{w:08x}u" for w in words[i : i + _WORDS_PER_LINE]) for i in range(0, len(words), _WORDS_PER_LINE)
    ]
    rows = [best_symbol(k) for k in plan.kernels]
    if kept:
        rows += ["/* Kept for later models: */", *(best_symbol(k) for k in kept)]
    kernels = "\n".join(row if row.startswith("#") else f"    {row}" for row in rows)
    body = ",\n    ".join(lines)
    return f"""/* Written by bdnet-deploy {__version__}: a .bdn model for the bdnet runtime. Do not edit. */
#include "{symbol}.h"

#include "bd_kernels.h"

BD_MODEL_ATTRIBUTE
const uint32_t {symbol}_data[{len(words)}] = {{
    {body}}};

static const bd_kernel *const {symbol}_table[] = {{
{kernels}
}};

const bd_kernel_table {symbol}_kernels = {{{symbol}_table, {len(plan.kernels) + len(kept)}u}};
"""


def _header(symbol: str, data: bytes, plan: Plan, io: IODescription | None, arena_reserve: int, reserved: int) -> str:
    upper = symbol.upper()
    arena = f"BD_ARENA_BYTES({len(plan.kernels)}u, {len(plan.steps)}u, {plan.tensor_bytes}u, {plan.scratch_bytes}u)"
    if arena_reserve:
        arena = f"({arena_reserve}u > {arena} ? {arena_reserve}u : {arena})"
    samples = describe_io(io).replace("*/", "* /")
    lines = [
        f"/* Written by bdnet-deploy {__version__}: a .bdn model for the bdnet runtime. Do not edit.",
        f" * Numerics: {plan.graph.numerics}. Input samples: {samples}. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        '#include "bdnet.h"',
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"extern const uint32_t {symbol}_data[];",
        f"extern const struct bd_kernel_table {symbol}_kernels;",
        "",
        f"#define {upper}_DATA {symbol}_data",
        f"#define {upper}_KERNELS {symbol}_kernels",
        f"#define {upper}_BYTES {len(data)}u",
        f"#define {upper}_RESERVED_BYTES {reserved}u",
        f"#define {upper}_ARENA_BYTES {arena}",
    ]
    if plan.pushed:
        lines.append(f"#define {upper}_INPUT_PUSHED 1 /* row by row: bd_begin, bd_advance, bd_push_row */")
    graph = plan.graph
    for kind, values in (("INPUT", graph.inputs), ("OUTPUT", graph.outputs)):
        lines.append(f"#define {upper}_{kind}S {len(values)}")
        for i, value in enumerate(values):
            tensor = plan.tensor_of(value)
            assert tensor is not None
            prefix = f"{upper}_{kind}" if len(values) == 1 else f"{upper}_{kind}{i}"
            lines += ["", *_tensor_macros(prefix, tensor, value.type.quant)]
    if io is not None and io.outputs and io.outputs[0].labels:
        labels = ", ".join(_c_string(label) for label in io.outputs[0].labels)
        lines += ["", f"/* Initialiser of an array of strings. */\n#define {upper}_LABELS {{{labels}}}"]
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "#endif", ""]
    return "\n".join(lines)


def _c_string(text: str) -> str:
    """A string literal that every C compiler reads alike: printable ASCII as it is, other UTF-8 bytes in octal."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode("utf-8")) + '"'


def _tensor_macros(prefix: str, tensor: PlanTensor, quant: Any) -> list[str]:
    values: dict[str, str | int] = {
        "TYPE": _C_TYPES[tensor.dtype],
        "HEIGHT": tensor.height,
        "WIDTH": tensor.width,
        "CHANNELS": tensor.channels,
        "ELEMENTS": tensor.height * tensor.width * tensor.channels,
    }
    if quant is not None and np.ndim(quant.scale) == 0:
        values["SCALE"] = f"{float(quant.scale):.9g}f"
        values["ZERO_POINT"] = int(quant.zero_point)
    return [f"#define {prefix}_{key} {value}" for key, value in values.items()]
