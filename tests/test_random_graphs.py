"""Random graphs, numerics and mixes of whole and streamed steps: the host library gives the reference's bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import random_network
from sanitized import sanitized_environment

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.graph import NUMERICS, Array, evaluate
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import lower
from bdnet_deploy.plan import Plan, make_plan

#: Graphs of one run; the long run sets another number.
EXAMPLES = int(os.environ.get("BDNET_EXAMPLES", "50"))

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def same(found: Array, expected: Array) -> bool:
    """Equal bytes; NaN is NaN, whatever its payload."""
    found = np.ascontiguousarray(found).reshape(expected.shape)
    if found.dtype.kind == "f":
        return bool(((found.view("u4") == expected.view("u4")) | (np.isnan(found) & np.isnan(expected))).all())
    return np.array_equal(found, expected)


def check_steps(plan: Plan, inputs: Array, values: dict[str, Array]) -> None:
    """Every tensor after the step that wrote it, all steps whole."""
    model = HostModel(write_bdn(plan))
    for i, x in enumerate(inputs):
        contents = model.run_steps(x)
        for index, tensor in enumerate(plan.tensors):
            for value in tensor.values:
                assert same(contents[index], values[value.name][i].astype(contents[index].dtype)), value.name


def check_mix(plan: Plan, inputs: Array, expected: Array) -> None:
    """Whole inferences, and one in slices."""
    model = HostModel(write_bdn(plan))
    assert same(model.run(inputs)[0], expected), plan.execution
    assert same(model.run_rows(inputs[0])[0][0], expected[0]), plan.execution


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31 - 1),
    numerics=st.sampled_from(NUMERICS),
    borders=st.lists(st.floats(0, 1), max_size=6),
    push_rows=st.booleans(),
)
def test_random_graph(seed: int, numerics: str, borders: list[float], push_rows: bool) -> None:
    """``borders``: where streamed segments begin and end, as shares of the steps."""
    network = random_network(seed)
    try:
        lowered = lower(network.graph, numerics, io=network.io, samples=network.samples)
    except UnsupportedError as error:
        assert "layer" in (error.where or error.what), error
        return
    inputs = network.inputs(lowered)
    values = evaluate(lowered.graph, [inputs], keep=True)
    output = lowered.graph.outputs[0]
    check_steps(lowered.plan, inputs, values)
    tensor = lowered.plan.tensor_of(output)
    assert tensor is not None
    expected = values[output.name].astype(tensor.dtype.numpy)
    steps = len(lowered.plan.steps)
    cuts = sorted({round(border * steps) for border in borders})
    segments = list(zip(cuts[::2], cuts[1::2], strict=False))
    check_mix(make_plan(lowered.graph, segments=segments), inputs, expected)
    if push_rows:
        try:
            pushed = make_plan(lowered.graph, push_rows=True)
        except UnsupportedError:
            assert inputs.shape[1] <= 16  # maps as low as their first window, or read as a whole
        else:
            check_mix(pushed, inputs, expected)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="preloads the sanitizers into Python")
def test_two_thousand_graphs_with_sanitizers(root: Path, tmp_path: Path) -> None:
    """AddressSanitizer and UndefinedBehaviorSanitizer in the library."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    environment = {**sanitized_environment(root, tmp_path), "BDNET_EXAMPLES": "2000"}
    test = f"{Path(__file__)}::test_random_graph"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=root,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
