"""Each ONNX operator against onnxruntime, on random inputs and attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import make_node, model, ours, runtime, save

from bdnet_deploy.importers.onnx.operators import OPERATORS

MAP = (1, 4, 7, 6)


def randn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape).astype(np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    """One node ``y = op(x, constants...)``; ``first`` names a node that turns the input into bools or integers."""

    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[Any, ...] = ()
    shape: tuple[int, ...] = MAP
    opset: int = 18
    outputs: int = 1
    first: str = ""
    positive: bool = False
    reverse: bool = False  # the input comes behind the constants

    def __str__(self) -> str:
        return f"{self.op}-{self.opset}-{self.attributes}".replace(" ", "")


POINTWISE = (
    "Abs Atan Ceil Cos Erf Exp Floor HardSwish Identity Mish Neg Relu Round Sigmoid Sign Sin Softplus Softsign Tan Tanh "
    "Elu Celu Selu LeakyRelu HardSigmoid ThresholdedRelu Gelu Shrink Asinh Sinh Cosh"
).split()
CASES = [
    *(Case(op, opset=20) for op in POINTWISE if op != "Celu"),
    Case("Celu", {"alpha": 0.7}),
    *(Case(op, positive=True) for op in ("Sqrt", "Log", "Reciprocal", "Acosh")),
    *(Case(op, {}, (), (2, 3), first="Tanh") for op in ("Acos", "Asin", "Atanh")),
    Case("Elu", {"alpha": 0.3}),
    Case("Selu", {"alpha": 1.2, "gamma": 0.9}),
    Case("LeakyRelu", {"alpha": 0.2}),
    Case("HardSigmoid", {"alpha": 1 / 6}),
    Case("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    Case("ThresholdedRelu", {"alpha": 0.4}),
    Case("Gelu", {"approximate": "tanh"}, opset=20),
    Case("Shrink", {"lambd": 0.3, "bias": 0.1}),
    *(Case(op, {}, (randn(4, 1, 1),)) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")),
    *(Case(op, {}, (randn(1),), reverse=True) for op in ("Add", "Sub", "Mul", "Div")),
    *(Case(op, {}, (randn(*MAP), randn(1))) for op in ("Max", "Min", "Sum", "Mean")),
    Case("Div", {}, (np.array(3, np.int64),), first="int"),
    Case("Div", {}, (np.array(-1, np.int64),), first="int"),
    Case("Mod", {}, (np.array(-3, np.int64),), first="int"),
    Case("Mod", {"fmod": 1}, (np.float32(0.7),)),
    Case("Pow", {}, (np.float32(2),)),
    Case("Pow", {}, (np.abs(randn(4, 1, 1)),), positive=True),
    *(Case(op, {}, (randn(4, 1, 1),)) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    Case("Equal", {}, (np.int64(0),), first="int"),
    *(Case(op, {}, (np.array(True),), first="bool") for op in ("And", "Or", "Xor")),
    Case("Not", first="bool"),
    Case("IsNaN"),
    Case("IsInf", {"detect_negative": 0}),
    Case("Where", {}, (np.float32(1), np.float32(-1)), first="bool"),
    Case("Clip", {}, (np.float32(-0.5), np.float32(0.5))),
    Case("Clip", {}, (np.float32(0.3), np.float32(-0.3))),
    Case("Clip", {"min": -0.2, "max": 0.7}, opset=9),
    Case("PRelu", {}, (randn(4, 1, 1),)),
    Case("PRelu", {}, (randn(1),)),
    Case("PRelu", {}, (randn(7, 6),)),
    Case("PRelu", {}, (randn(3),), (2, 3)),
    Case("Cast", {"to": 7}),
    Case("Cast", {"to": 9}),
    Case("Cast", {"to": 1}, first="bool"),
    Case("CastLike", {}, (np.int64(0),)),
    Case("Dropout"),
    # products
    Case("Conv", {"kernel_shape": [3, 3]}, (randn(5, 4, 3, 3), randn(5))),
    Case("Conv", {"pads": [1, 2, 1, 2], "strides": [2, 1], "dilations": [2, 1]}, (randn(5, 4, 3, 3),)),
    Case("Conv", {"pads": [0, 1, 1, 2], "group": 2}, (randn(6, 2, 3, 3), randn(6))),
    *(
        Case("Conv", {"auto_pad": p, "strides": [2, 3]}, (randn(4, 4, 3, 2),))
        for p in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", {"pads": [1, 1]}, (randn(5, 4, 3),), (1, 4, 9)),
    Case("Conv", {}, (randn(2, 3, 2, 2, 2),), (1, 3, 4, 5, 4)),
    Case("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, (randn(4, 3, 3, 3), randn(3))),
    Case("ConvTranspose", {"strides": [2, 2], "pads": [0, 1, 1, 0], "output_padding": [1, 1]}, (randn(4, 3, 3, 3),)),
    Case("ConvTranspose", {"strides": [2, 2], "output_shape": [14, 13]}, (randn(4, 3, 3, 3),)),
    Case("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (randn(4, 3, 3, 3),)),
    Case("Gemm", {"transB": 1}, (randn(5, 3), randn(5)), (1, 3)),
    Case("Gemm", {"alpha": 0.5, "beta": 2.0}, (randn(3, 5), randn(1, 5)), (2, 3)),
    Case("Gemm", {"transA": 1}, (randn(2, 5), randn(3, 1)), (2, 3)),
    Case("MatMul", {}, (randn(6, 5),)),
    Case("MatMul", {}, (randn(3, 7),), reverse=True),
    Case("Einsum", {"equation": "nchw,cd->ndhw"}, (randn(4, 3),)),
    # pools
    *(
        Case(op, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": pads, "ceil_mode": ceil}, opset=19)
        for op in ("AveragePool", "MaxPool")
        for pads in ([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [2, 1, 2, 1])
        for ceil in (0, 1)
    ),
    *(
        Case("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": pads, "count_include_pad": 1}, opset=19)
        for pads in ([1, 1, 1, 1], [0, 1, 1, 0])
    ),
    *(
        Case(op, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": p})
        for op in ("AveragePool", "MaxPool")
        for p in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    Case("MaxPool", {"kernel_shape": [2]}, (), (1, 3, 8)),
    Case("GlobalAveragePool"),
    Case("GlobalMaxPool"),
    *(
        Case(
            "Resize", {"coordinate_transformation_mode": c, "nearest_mode": m}, (np.float32([]), np.float32([1, 1, *s]))
        )
        for c in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
        for m in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        for s in ((2, 3), (0.5, 1.5))
    ),
    Case("Resize", {"coordinate_transformation_mode": "asymmetric"}, (None, None, i64(1, 4, 14, 9))),
    Case("Resize", {"axes": [2, 3]}, (None, np.float32([2, 2]))),
    Case("Resize", {"mode": "nearest"}, (np.float32([1, 1, 2, 2]),), opset=10),
    Case("Upsample", {"mode": "nearest"}, (np.float32([1, 1, 2, 3]),), opset=9),
    Case("DepthToSpace", {"blocksize": 2}, (), (1, 8, 3, 2)),
    Case("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, (), (1, 8, 3, 2)),
    Case("SpaceToDepth", {"blocksize": 2}, (), (1, 3, 4, 6)),
    # reductions
    *(
        Case(f"Reduce{op}", {"keepdims": keep}, (axes,), opset=18, positive=op.startswith("Log"))
        for op in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
        for keep, axes in ((0, i64(2, 3)), (1, i64(-1)))
    ),
    Case("ReduceMean", {"axes": [2, 3], "keepdims": 0}, opset=13),
    Case("ReduceSum", {"axes": [1]}, opset=11),
    Case("ReduceMax", {}, opset=13),
    Case("ReduceSum", {"noop_with_empty_axes": 1}, (i64(),)),
    Case("ReduceL1", {"noop_with_empty_axes": 1}, (i64(),)),
    Case("Softmax", {"axis": 1}),
    Case("Softmax"),
    Case("Softmax", {"axis": 1}, opset=11),
    Case("Softmax", opset=9, shape=(2, 5)),
    Case("LogSoftmax", {"axis": 1}),
    Case("Hardmax", {"axis": 1}),
    Case("ArgMax", {"axis": 1, "keepdims": 0}),
    Case("ArgMin", {"axis": -1}),
    Case("TopK", {"axis": 1}, (i64(2),), outputs=2),
    Case("TopK", {"axis": 1, "largest": 0}, (i64(3),), outputs=2),
    *(Case("CumSum", {"exclusive": e, "reverse": r}, (np.int64(2),)) for e in (0, 1) for r in (0, 1)),
    Case("LpNormalization", {"axis": 1, "p": 1}),
    Case("LpNormalization", {"axis": 1}),
    # normalization
    Case("BatchNormalization", {"epsilon": 1e-3}, (randn(4), randn(4), randn(4), np.abs(randn(4)))),
    Case("BatchNormalization", {}, (randn(4), randn(4), randn(4), np.abs(randn(4))), opset=9),
    Case("BatchNormalization", {}, (randn(3), randn(3), randn(3), np.abs(randn(3))), (2, 3)),
    Case("LayerNormalization", {"axis": -1}, (randn(6), randn(6))),
    Case("LayerNormalization", {"axis": 2, "epsilon": 1e-3}, (randn(7, 6),)),
    Case("GroupNormalization", {"num_groups": 2}, (randn(4), randn(4)), opset=21),
    Case("InstanceNormalization", {"epsilon": 1e-3}, (randn(4), randn(4))),
    Case("RMSNormalization", {"axis": -1}, (randn(6),), opset=23),
    # moves
    Case("Concat", {"axis": 1}, (randn(1, 2, 7, 6),)),
    Case("Concat", {"axis": -1}, (randn(*MAP),), reverse=True),
    Case("Expand", {}, (i64(3, 1, 7, 6),)),
    Case("Flatten"),
    Case("Flatten", {"axis": 2}),
    Case("Flatten", {"axis": -1}),
    Case("Gather", {"axis": 1}, (i64(2, -1, 0),)),
    Case("Gather", {"axis": 2}, (np.int64(3),)),
    Case("Gather", {"axis": 1}, (i64(0, 1, 2, 3).reshape(2, 2),)),
    Case("GatherElements", {"axis": 3}, (np.zeros((1, 4, 7, 2), np.int64) - 1,)),
    Case("GatherND", {}, (i64(0, 1, 0, 3).reshape(2, 2),)),
    Case("ScatterND", {}, (i64(0, 1).reshape(1, 2), randn(1, 7, 6))),
    *(Case("Pad", {"mode": m}, (i64(0, 0, 1, 2, 0, 0, 2, 1),)) for m in ("constant", "edge", "reflect")),
    Case("Pad", {}, (i64(0, 1, 0, 0, 0, 2, 0, 0), np.float32(-1))),
    Case("Pad", {}, (i64(0, 0, -1, 0, 0, 0, 0, 1), np.float32(-1))),
    Case("Pad", {}, (i64(1, 2), np.float32(0.5), i64(3))),
    Case("Pad", {"mode": "constant", "pads": [0, 0, 1, 1, 0, 0, 0, 1], "value": 2.0}, opset=9),
    Case("Reshape", {}, (i64(0, -1, 6),)),
    Case("Slice", {}, (i64(1), i64(-1), i64(2))),
    Case("Slice", {}, (i64(0, 1), i64(2**62, 5), i64(1, 3), i64(2, 3))),
    Case("Slice", {}, (i64(-1, 5), i64(-(2**62), 1), i64(2, 3), i64(-1, -2))),
    Case("Slice", {"axes": [1, 2], "starts": [1, 0], "ends": [3, -2]}, opset=9),
    Case("Split", {"axis": 1}, (i64(1, 3),), outputs=2),
    Case("Split", {"axis": 2, "num_outputs": 3}, outputs=3),
    Case("Split", {"axis": 1, "split": [2, 2]}, opset=11, outputs=2),
    Case("Squeeze", {}, (i64(0),)),
    Case("Squeeze"),
    Case("Squeeze", {"axes": [0]}, opset=11),
    Case("Unsqueeze", {}, (i64(0, -1),)),
    Case("Unsqueeze", {"axes": [2, 3]}, opset=11),
    Case("Tile", {}, (i64(1, 2, 1, 3),)),
    Case("Transpose", {"perm": [0, 2, 3, 1]}),
    Case("Transpose"),
    Case("Trilu", {"upper": 0}, (np.int64(1),)),
    Case("Shape"),
    Case("Shape", {"start": 1, "end": -1}),
    Case("Size"),
    Case("EyeLike", {"k": 1}, (), (3, 4)),
    Case("OneHot", {"axis": -1}, (np.int64(5), np.float32([0, 2])), (2, 3), first="int"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c}-{len(c.constants)}")
def test_operator(case: Case, tmp_path: Path) -> None:
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(case.constants)]
    constants = {name: value for name, value in zip(names, case.constants) if name}
    nodes, x = [], "x"
    if case.first == "bool":
        nodes, x = [make_node("Greater", ["x", "zero"], ["b"])], "b"
        constants["zero"] = np.float32(0.1)
    elif case.first == "int":
        nodes, x = [make_node("Mul", ["x", "three"], ["t"]), make_node("Cast", ["t"], ["i"], to=7)], "i"
        constants["three"] = np.float32(3)
    elif case.first:
        nodes, x = [make_node(case.first, ["x"], ["t"])], "t"
    outputs = [f"y{i}" for i in range(case.outputs)]
    if case.op == "Resize" and case.opset > 10 and len(names) == 2 and case.constants[0] is None:
        names = ["", names[1]]
    inputs = [*names, x] if case.reverse else [x, *names]
    nodes.append(make_node(case.op, inputs, outputs, **case.attributes))
    path = save(tmp_path / "m.onnx", model(nodes, case.shape, constants, outputs=outputs, opset=case.opset))
    sample = randn(*case.shape)
    sample = np.abs(sample) + 1 if case.positive else sample
    expected, got = runtime(path, sample), ours(path, sample)
    assert len(got) == len(expected)
    for g, e in zip(got, expected):
        assert g.shape == e.shape
        if e.dtype == np.float32:
            np.testing.assert_allclose(g, e, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(e).max(initial=0))))
        else:
            assert np.array_equal(g, e)


def test_constants_of_every_kind(tmp_path: Path) -> None:
    nodes = [
        make_node("Constant", [], ["f"], value_float=0.5),
        make_node("Constant", [], ["fs"], value_floats=[1.0, 2.0, 3.0]),
        make_node("Constant", [], ["i"], value_int=1),
        make_node("Constant", [], ["is"], value_ints=[1, 3]),
        make_node("ConstantOfShape", ["is"], ["zeros"]),
        make_node("Cast", ["i"], ["one"], to=1),
        make_node("Range", ["start", "limit", "delta"], ["r"]),
        *(make_node("Add", [a, b], [c]) for a, b, c in (("x", "f", "a"), ("a", "fs", "b"), ("b", "zeros", "c"))),
        make_node("Add", ["c", "one"], ["d"]),
        make_node("Add", ["d", "r"], ["y"]),
    ]
    constants = {"start": np.float32(1), "limit": np.float32(2.5), "delta": np.float32(0.5)}
    path = save(tmp_path / "m.onnx", model(nodes, (1, 3), constants))
    x = randn(1, 3)
    np.testing.assert_allclose(ours(path, x)[0], runtime(path, x)[0], rtol=1e-6)


def test_every_operator_is_tested() -> None:
    elsewhere = {"Constant", "ConstantOfShape", "Range", "DequantizeLinear", "QuantizeLinear", "Swish"}
    assert {op for domain, op in OPERATORS if not domain and op.isalnum()} - {c.op for c in CASES} == elsewhere


def test_swish_and_dequantized_weights(tmp_path: Path) -> None:
    """Newer than the installed onnxruntime, and folded; against the formulas of the specification."""
    x = randn(2, 4)
    path = save(tmp_path / "swish.onnx", model([make_node("Swish", ["x"], ["y"], alpha=0.5)], (2, 4), opset=24))
    np.testing.assert_allclose(ours(path, x)[0], x / (1 + np.exp(-0.5 * x)), rtol=1e-5, atol=1e-6)
    q = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    nodes = [make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0), make_node("MatMul", ["x", "w"], ["y"])]
    constants = {"q": q, "s": np.abs(randn(4)), "z": np.zeros(4, np.int8)}
    path = save(tmp_path / "q.onnx", model(nodes, (2, 4), constants))
    np.testing.assert_allclose(ours(path, x)[0], runtime(path, x)[0], rtol=1e-5, atol=1e-5)
