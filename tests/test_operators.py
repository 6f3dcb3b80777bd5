"""The list of operators: docs/ops.md is current, and what it says of kernels is what plans do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_random_networks import lowered_network

pytest.importorskip("onnx")

from bdnet_deploy.analysis.operators import FAMILIES, kernels_of, markdown, operators
from bdnet_deploy.cli import app
from bdnet_deploy.graph import NUMERICS, OPS, Repeat, Reshape
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.plan.kernels import kernel_names


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app.cli, ["ops", *arguments], prog_name="bdnet-deploy")
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_page_is_current(root: Path) -> None:
    """If this fails: ``bdnet-deploy ops --format markdown > docs/ops.md``."""
    page = (root / "docs" / "ops.md").read_text(encoding="utf-8")
    assert page == run("--format", "markdown") == markdown(operators())


def test_every_operator_is_listed() -> None:
    rows = json.loads(run("--format", "json"))["tables"]["operators"]["rows"]
    assert [row["operator"] for row in rows] == sorted(OPS)
    assert all(row["description"] and row["meaning"] and "fixed8" in row["numerics"] for row in rows)
    assert all(name in run() for name in OPS)
    assert set(FAMILIES) <= set(OPS)


def test_every_kernel_belongs_to_an_operator() -> None:
    assert {k for name in OPS for k in kernels_of(name)} == kernel_names()
    nothing = {name for name in OPS if not kernels_of(name)}
    assert nothing == set()


def test_the_kernels_are_those_of_plans() -> None:
    """A step's first operator is what its kernel runs."""
    seen = set()
    for seed in range(90):
        lowered = lowered_network(seed, NUMERICS[seed % 3])[1]
        if not isinstance(lowered, Lowered):
            continue
        for step in lowered.plan.steps:
            first = step.nodes[0].op
            if step.kernel is not None:
                assert step.kernel in kernels_of(first.name)
                seen.add(first.name)
            elif not isinstance(first, Repeat | Reshape):  # which an epilogue can read past
                assert step.epilogue_kernel in kernels_of(first.name)
    assert len(seen) > 20
