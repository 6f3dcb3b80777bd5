"""``ops``: the graph's operators, from their own docstrings, and what of the rest of the project knows each of them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping

from bdnet_deploy.errors import MissingPackageError
from bdnet_deploy.graph import OPS, Op, float_functions
from bdnet_deploy.passes.quantize import quantize  # noqa: F401  enters the rules
from bdnet_deploy.passes.quantizer import RULES as QUANTIZE
from bdnet_deploy.plan import make_plan  # noqa: F401  enters the rules
from bdnet_deploy.plan.kernels import kernel_names
from bdnet_deploy.plan.lowering import RULES as LOWER
from bdnet_deploy.report import Column, Report, Table
from bdnet_deploy.report import Value as Cell

#: Operator -> families of the kernels that run it: ``bd_<family>_<operands>``.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "affine": ("epilogue",),
    "avg_pool": ("avgpool",),
    "bit_logic": ("logic",),
    "conv2d": ("conv", "dw"),
    "flip": ("gather",),
    "global_avg_pool": ("gap",),
    "linear": ("conv",),
    "pad": ("gather",),
    "pixel_shuffle": ("permute",),
    "pixel_unshuffle": ("permute",),
    "reduce": ("map_max", "map_sum", "channel_max", "channel_sum", "gap"),
    "repeat": ("repeat", "gather"),
    "reshape": ("permute",),
    "shuffle": ("gather",),
    "sign": ("epilogue",),
    "slice": ("gather",),
    "ternarize": ("epilogue",),
    "transpose": ("permute",),
    "two_slope": ("epilogue",),
    "unary": tuple(sorted(float_functions.REAL)),
    "upsample": ("gather",),
}
_OPERANDS = r"(?:[a-z]{1,2}_)?(?:f32|i32|i16|i8|u8|bit|trit|ubit)(?:__[a-z0-9]+)?"
_EXPORTERS = {"onnx": "bdnet_deploy.export.onnx", "tflite": "bdnet_deploy.export.tflite.lowering"}


def kernels_of(name: str) -> list[str]:
    """The runtime's kernels that run the operator of this name."""
    families = "|".join(FAMILIES.get(name, (name,)))
    return sorted(k for k in kernel_names() if re.fullmatch(f"bd_(?:{families})_{_OPERANDS}", k))


def operators() -> Report:
    """Every operator: meaning, numerics, exporters, kernels.

    An exporter whose package is not installed is not known (None).
    """
    table = Table(
        "operators",
        [
            Column("operator"),
            Column("numerics"),
            Column("onnx", "ONNX"),
            Column("tflite", "TFLite"),
            Column("meaning"),
            Column("kernels"),
            Column("description"),
        ],
        notes=[
            "An operator that an exporter writes may still be refused with some operands; the message names it.",
            "Kernels: f f32, u u8, q i8, h i16, i i32, b bit, t trit, z bit of 0 and 1.",
        ],
    )
    exporters = {target: _written_by(module) for target, module in _EXPORTERS.items()}
    for name, op in sorted(OPS.items()):
        written: dict[str, Cell] = {t: None if known is None else name in known for t, known in exporters.items()}
        description = inspect.cleandoc(op.__doc__ or "")
        table.add(
            operator=name,
            numerics=_numerics(op),
            meaning=_plain(description.split("\n\n")[0].replace("\n", " ")),
            kernels=", ".join(kernels_of(name)),
            description=description,
            **written,
        )
    return Report("ops", tables=[table])


def _numerics(op: type[Op]) -> str:
    if op not in LOWER:
        return "none"
    return "float, fixed16, fixed8" if op in QUANTIZE else "fixed16, fixed8"  # made when another operator is quantized


def _written_by(module: str) -> frozenset[str] | None:
    try:
        found: frozenset[str] = importlib.import_module(module).OPERATORS
    except (MissingPackageError, ImportError):
        return None
    return found


def _plain(text: str) -> str:
    """Docstring markup as words."""
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")


def summary(report: Report) -> Report:
    """The report without the columns that are too long for a terminal."""
    table = report.tables[0]
    short = [c for c in table.columns if c.key not in ("kernels", "description")]
    rows = [{c.key: row.get(c.key) for c in short} for row in table.rows]
    for row in rows:
        row["meaning"] = str(row["meaning"]).replace("`", "")
    return Report(report.kind, tables=[Table(table.title, short, rows, table.notes[:1])])


def markdown(report: Report) -> str:
    """The report as a page: a table, then a section an operator."""
    table = report.tables[0]
    lines = [
        "# Operators of the graph",
        "",
        "Made by `bdnet-deploy ops --format markdown` from the operators' own docstrings; a test compares. What PyTorch calls",
        "them: [importing.md](importing.md). What the numerics are: [numerics.md](numerics.md).",
        "",
        "| operator | numerics | ONNX | TFLite |",
        "|---|---|---|---|",
    ]
    for row in table.rows:
        name = row["operator"]
        marks = ["" if row[t] is None else "yes" if row[t] else "no" for t in ("onnx", "tflite")]
        lines.append(f"| [`{name}`](#{name}) | {row['numerics']} | {marks[0]} | {marks[1]} |")
    lines += ["", *table.notes[:1], "", f"{table.notes[1]}", ""]
    for row in table.rows:
        lines += [f"## {row['operator']}", "", _plain(str(row["description"])), ""]
        lines += [f"Kernels: {_grouped(str(row['operator']))}.", ""]
    return "\n".join(lines)


def _grouped(name: str) -> str:
    """``bd_conv_{bb_i16, bb_i32}`` for the kernels of each family."""
    parts = []
    for family in FAMILIES.get(name, (name,)):
        head = f"bd_{family}_"
        tails = [k.removeprefix(head) for k in kernels_of(name) if re.fullmatch(head + _OPERANDS, k)]
        if tails:
            parts.append(f"`{head}{tails[0]}`" if len(tails) == 1 else f"`{head}{{{', '.join(tails)}}}`")
    return ", ".join(parts)
