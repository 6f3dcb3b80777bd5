"""The numpy interpreter of TensorFlow Lite files against Larq Compute Engine's."""

from __future__ import annotations

import numpy as np
import pytest
from tflite_operator_cases import EXACT, ROUNDED, Case

from bdnet_deploy.errors import BdnetError, MissingPackageError, ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.export.tflite.builder import F32, Builder
from bdnet_deploy.export.tflite.flatbuffer import to_bytes
from bdnet_deploy.export.tflite.schema import Model, Operator
from bdnet_deploy.peers import lce
from bdnet_deploy.tflite_reference import evaluate, split

ALL = {**EXACT, **ROUNDED}


def _run(cases: list[Case], mode: str = "default") -> list[np.ndarray]:
    try:
        lce.find_interpreter()
    except MissingPackageError as error:
        pytest.skip(str(error))
    return [out[0] for out in lce.run_many([(to_bytes(c.model), c.inputs) for c in cases], mode=mode)]


def _compare(name: str, cases: list[Case], theirs: list[np.ndarray]) -> None:
    varied = False
    for case, expected in zip(cases, theirs, strict=True):
        (got,) = evaluate(to_bytes(case.model), case.inputs).values()
        assert got.shape == expected.shape and got.dtype == expected.dtype
        if name in EXACT:
            assert np.array_equal(got, expected)
        else:
            finite = np.isfinite(expected)
            assert np.array_equal(got[~finite], expected[~finite], equal_nan=True)
            largest = np.abs(expected[finite]).max(initial=0)
            assert np.abs(got[finite] - expected[finite]).max(initial=0) <= 2e-6 * largest
        varied |= np.ptp(expected.astype(np.float64)) > 0
    assert varied, "results that are all constant show nothing"


@pytest.fixture(scope="module")
def few() -> dict[str, tuple[list[Case], list[np.ndarray]]]:
    """A few cases of every operator, in one process of Larq Compute Engine."""
    cases = [make(seed) for make in ALL.values() for seed in range(6)]
    theirs = _run(cases)
    return {name: (cases[6 * i : 6 * i + 6], theirs[6 * i : 6 * i + 6]) for i, name in enumerate(ALL)}


@pytest.mark.parametrize("name", ALL)
def test_operator(name: str, few: dict[str, tuple[list[Case], list[np.ndarray]]]) -> None:
    _compare(name, *few[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_operator_often(name: str) -> None:
    cases = [ALL[name](seed) for seed in range(100, 300)]
    _compare(name, cases, _run(cases))


@pytest.mark.parametrize("name", [n for n in EXACT if n.startswith("LceBconv2d")])
def test_indirect_convolution(name: str) -> None:
    cases = [ALL[name](seed) for seed in range(40, 60)]
    _compare(name, cases, _run(cases, "indirect"))


def _small() -> tuple[Model, np.ndarray]:
    model = Model()
    b = Builder(model)
    x = b.tensor("x", (1, 3), F32)
    y = b.add(x, b.constant("c", np.array([1, 2, 3], np.float32)), "sum")
    z = b.op("RELU", (y,), b.tensor("z", (1, 3)))
    model.inputs, model.outputs = [x], [z]
    return model, np.array([[-4, 0, 1], [5, -9, -9]], np.float32)


def test_all_tensors_are_shown() -> None:
    model, x = _small()
    values = evaluate(model, x, keep=True)
    assert list(values) == ["x", "sum", "z"]
    assert values["sum"].tolist() == [[-3, 2, 4], [6, -7, -6]]
    assert values["z"].tolist() == [[0, 2, 4], [6, 0, 0]]
    assert list(evaluate(model, x)) == ["z"]


def test_split_runs_like_the_whole() -> None:
    model, x = _small()
    values = evaluate(model, x, keep=True)
    slices = split(to_bytes(model))
    assert [(s.operator, s.inputs, s.outputs) for s in slices] == [
        ("ADD", ("x",), ("sum",)),
        ("RELU", ("sum",), ("z",)),
    ]
    for part in slices:
        (got,) = evaluate(to_bytes(part.model), [values[name] for name in part.inputs]).values()
        assert np.array_equal(got, values[part.outputs[0]])


def test_unknown_operator() -> None:
    model, x = _small()
    model.operators[1] = Operator("ARG_MAX", model.operators[1].inputs, model.operators[1].outputs)
    with pytest.raises(UnsupportedError, match="ARG_MAX") as caught:
        evaluate(model, x)
    assert caught.value.where == "z"


def test_wrong_samples() -> None:
    model, x = _small()
    for wrong in (x[:, :2], x.astype(np.float64), [x, x], x[:0]):
        with pytest.raises(UsageError):
            evaluate(model, wrong)


def test_damaged_models_are_refused() -> None:
    """Any change of one operand's shape, or of an operator's inputs, ends in an error of ours or a result."""
    rng = np.random.default_rng(0)
    refused = 0
    for name, make in ALL.items():
        for seed in range(4):
            case = make(seed)
            op = case.model.operators[0]
            kind = seed % 4
            if kind == 0:
                tensor = case.model.tensors[op.outputs[0]]
                tensor.shape = (*tensor.shape[:-1], tensor.shape[-1] + 1)
            elif kind == 1:
                op.inputs = tuple(int(i) for i in rng.permutation(op.inputs))[: max(1, len(op.inputs) - 1)]
            elif kind == 2:
                op.options = {k: int(rng.integers(-5, 100)) for k in op.options}
            else:
                op.custom_options = bytes(rng.integers(0, 256, 20).astype(np.uint8))
            try:
                evaluate(case.model, case.inputs)
            except BdnetError as error:
                refused += 1
                assert isinstance(error, (ModelFileError, UnsupportedError, UsageError)), name
    assert refused > 100
