"""Two files of our own runtime, no model beside them: what they store, and what they compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bdnet_deploy import bdn_format
from bdnet_deploy.analysis.comparing.decoded import compare_io
from bdnet_deploy.analysis.comparing.layers import compare_top1
from bdnet_deploy.analysis.comparing.own import different_elements
from bdnet_deploy.analysis.comparing.settings import Settings
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.bdn_reader import BdnReader
from bdnet_deploy.errors import UsageError
from bdnet_deploy.graph import Array
from bdnet_deploy.report import Value


def open_pair(a: Path, b: Path) -> tuple[BdnReader, BdnReader]:
    """Both files.

    Raises:
        ModelFileError: one cannot be read.
        UsageError: their inputs or outputs have other shapes, so that nothing can be compared.
    """
    first, second = BdnReader.open(a), BdnReader.open(b)
    for kind in ("inputs", "outputs"):
        shapes = [[tuple(port.shape) for port in getattr(r.model, kind)] for r in (first, second)]
        if shapes[0] != shapes[1]:
            raise UsageError(f"the files have other {kind}: {shapes[0]} and {shapes[1]}", where=f"{a} and {b}")
    return first, second


def verify_pair(
    first: BdnReader, second: BdnReader, x: Array, verdicts: Verdicts, settings: Settings
) -> dict[str, Value]:
    """Compare ``second`` with ``first``; returns facts for the report.

    Of one numerics the steps, constants and outputs must be the same bytes; else predictions must agree.
    """
    facts: dict[str, Value] = {"numerics": f"{first.numerics} and {second.numerics}"}
    compare_io(second.io, first.io, verdicts)
    expected = first.predict(x)
    if first.numerics != second.numerics:
        facts["compared"] = "predictions; every byte where both have one numerics"
        compare_top1(
            f"{second.numerics} against {first.numerics}",
            second.predict(x),
            expected,
            verdicts,
            least=settings.agreement(integers=True),
            judged=settings.judge_integers,
        )
    else:
        facts["compared"] = "kernels, constants and outputs, byte for byte"
        kernels, others = _kernels(first), _kernels(second)
        wrong = [i for i, (a, b) in enumerate(zip(kernels, others)) if a != b]
        different = len(wrong) + abs(len(kernels) - len(others))
        why = f"step {wrong[0]} runs {others[wrong[0]]}, in the first file {kernels[wrong[0]]}" if wrong else ""
        why = why or f"{len(others)} steps, in the first file {len(kernels)}"
        verdicts.add("structure", "", compared=len(kernels), different=different, why=why)
        a, b = (np.frombuffer(r.file.constants, np.uint8) for r in (first, second))
        same = a.size == b.size
        count = int((a != b).sum()) if same else max(a.size, b.size)
        why = (
            f"{count} of {a.size} bytes differ" if same else f"{b.size} bytes of constants, in the first file {a.size}"
        )
        cause = "a damaged or edited file: almost all constants are equal" if same and 0 < count <= 8 else ""
        verdicts.add("constants", "", compared=a.size, different=count, why=why, cause=cause)
        raw = second.predict(x)
        why = "the outputs differ"
        verdicts.add("end to end", "", compared=raw.size, different=different_elements(raw, expected), why=why)
    for name, reader in (("first file", first), ("second file", second)):
        passed = reader.self_test()
        verdicts.add("self-test", name, compared=1, different=int(not passed), why="the recorded test vector fails")
    return facts


def _kernels(reader: BdnReader) -> list[str]:
    """Names of the kernels of each step."""
    names = reader.file.kernels
    return [
        " + ".join(names[int(step[key])] for key in ("kernel", "epilogue") if step[key] != bdn_format.NONE)
        for step in reader.file.steps
    ]
