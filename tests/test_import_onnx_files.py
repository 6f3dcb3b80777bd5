"""ONNX files written by hand: structure, what is refused and how, QONNX, and damaged or hostile files."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import QONNX, make_node, model, onnx, ours, runtime, save
from test_ops_elementwise import check_host
from torch_modules import BIT, TRIT, layers

import bdnet_deploy
from bdnet_deploy.errors import BdnetError, ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.graph import Conv2d, DType, Linear, Quantize, evaluate
from bdnet_deploy.importers.onnx import read
from bdnet_deploy.importers.torch.recorder import record
from bdnet_deploy.lowering import lower

torch = pytest.importorskip("torch")
helper, TensorProto = onnx.helper, onnx.TensorProto

SHAPE = (1, 4, 8, 8)
RNG = np.random.default_rng(3)


def randn(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def signs(*shape: int) -> np.ndarray:
    return np.where(RNG.standard_normal(shape) < 0, -1, 1).astype(np.float32)


def check(path: Path, shape: tuple[int, ...] = SHAPE) -> bdnet_deploy.Model:
    """Import; the graph's outputs are those of onnxruntime."""
    imported = bdnet_deploy.load(path)
    x = randn(3, *shape[1:])
    expected = np.concatenate([runtime(path, row[None])[0] for row in x])
    nhwc = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    got = evaluate(imported.graph, [nhwc.astype(np.float64)])[imported.graph.outputs[0].name]
    got = np.moveaxis(got, -1, 1) if got.ndim == 4 else got
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    return imported


def refused(path: Path, kind: type[BdnetError], *says: str, **options: Any) -> BdnetError:
    with pytest.raises(kind) as info:
        bdnet_deploy.load(path, **options)
    for part in says:
        assert part in str(info.value), str(info.value)
    return info.value


def conv(x: str, y: str, w: str = "w", name: str = "") -> Any:
    return make_node("Conv", [x, w], [y], name=name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


# -- structure ------------------------------------------------------------------------------------------------------------


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    """With an attribute of the call and one by default, an optional input, a nested call, and names that clash."""
    domain = "mine"
    shift = helper.make_function(
        domain, "Shift", ["x", "by"], ["y"], [make_node("Add", ["x", "by"], ["y"])],
        [helper.make_opsetid("", 18)], [],
    )  # fmt: skip
    leaky, elu = make_node("LeakyRelu", ["x"], ["t"]), make_node("Elu", ["s"], ["y"])
    for node, name in ((leaky, "slope"), (elu, "other")):
        node.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name=name)
    block = helper.make_function(
        domain, "Block", ["x", "by", "unused"], ["y"],
        [leaky, make_node("Shift", ["t", "by"], ["s"], domain=domain), elu],
        [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)], ["slope"],
        [helper.make_attribute("other", 0.5)],
    )  # fmt: skip
    nodes = [
        make_node("Block", ["x", "b", ""], ["t"], domain=domain, name="first", slope=0.2),
        make_node("Block", ["t", "b"], ["y"], domain=domain, name="second", slope=0.3),
    ]
    proto = model(nodes, SHAPE, {"b": randn(4, 1, 1)}, functions=[shift, block], domains=[domain])
    path = save(tmp_path / "m.onnx", proto)
    x = randn(*SHAPE)
    np.testing.assert_allclose(ours(path, x)[0], runtime(path, x)[0], rtol=1e-5, atol=1e-6)
    trace = record(read(path).module, torch.from_numpy(x))
    assert {step.path for step in trace.steps} == {"first", "second"}


@pytest.mark.parametrize("chosen", [True, False])
def test_a_constant_condition_folds(chosen: bool, tmp_path: Path) -> None:
    """Also one that is computed from the shape; the branches see the names around them."""
    branches = {
        "then_branch": helper.make_graph([make_node("Relu", ["x"], ["t"]), make_node("Add", ["t", "one"], ["o"])], "a", [],
                                         [helper.make_empty_tensor_value_info("o")]),
        "else_branch": helper.make_graph([make_node("Neg", ["x"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")]),
    }  # fmt: skip
    nodes = [
        make_node("Shape", ["x"], ["shape"]),
        make_node("Gather", ["shape", "axis"], ["size"]),
        make_node("Equal", ["size", "wanted"], ["same"]),
        make_node("If", ["same"], ["y"], name="choice", **branches),
    ]
    constants = {"axis": np.int64(1), "wanted": np.int64(4 if chosen else 5), "one": np.float32(1)}
    check(save(tmp_path / "m.onnx", model(nodes, SHAPE, constants)))


def test_shape_arithmetic_folds(tmp_path: Path) -> None:
    """What the older exporter writes for x.view(x.size(0), -1): none of it is recorded."""
    nodes = [
        make_node("Shape", ["x"], ["s"]),
        make_node("Gather", ["s", "zero"], ["n"]),
        make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        make_node("Concat", ["n1", "minus"], ["to"], axis=0),
        make_node("GlobalAveragePool", ["x"], ["p"]),
        make_node("Reshape", ["p", "to"], ["v"]),
        make_node("Gemm", ["v", "w"], ["y"], transB=1, name="head"),
    ]
    zero, minus = np.int64(0), np.array([-1], np.int64)
    constants = {"zero": zero, "axes": np.array([0], np.int64), "minus": minus, "w": randn(3, 4)}
    path = save(tmp_path / "m.onnx", model(nodes, ("batch", 4, 8, 8), constants))
    assert check(path).notes
    assert len(record(read(path).module, torch.from_numpy(randn(*SHAPE))).steps) == 3


def test_group_normalization_in_disguise(tmp_path: Path) -> None:
    """PyTorch's exporters write it as instance normalization of a reshaped map."""
    nodes = [
        make_node("Reshape", ["x", "groups"], ["r"]),
        make_node("InstanceNormalization", ["r", "g", "b"], ["n"], epsilon=1e-3),
        make_node("Shape", ["x"], ["s"]),
        make_node("Reshape", ["n", "s"], ["m"]),
        make_node("Mul", ["m", "gamma"], ["k"]),
        make_node("InstanceNormalization", ["k", "h", "c"], ["y"]),
    ]
    constants = {"groups": np.array([0, 2, -1], np.int64), "g": randn(2), "b": randn(2), "gamma": randn(4, 1, 1),
                 "h": randn(4), "c": randn(4)}  # fmt: skip
    graph = check(save(tmp_path / "m.onnx", model(nodes, SHAPE, constants))).graph
    assert [n.op.name for n in graph.nodes].count("group_norm") == 2
    # The same nodes around another shape are what they say.
    constants["groups"] = np.array([1, 8, 4, -1], np.int64)
    constants |= {"g": randn(8), "b": randn(8)}
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, constants))
    x = randn(*SHAPE)
    np.testing.assert_allclose(ours(path, x)[0], runtime(path, x)[0], rtol=1e-4, atol=1e-4)


def test_half_precision_weights(tmp_path: Path) -> None:
    proto = model([conv("x", "y")], SHAPE, {"w": randn(4, 4, 3, 3).astype(np.float16)}, input_type=TensorProto.FLOAT16)
    path = save(tmp_path / "m.onnx", proto)
    assert layers(bdnet_deploy.load(path).graph) == [(DType.F64, DType.F64)]


def test_initializers_of_every_type(tmp_path: Path) -> None:
    """As numbers in the fields of their type, not only as raw bytes."""
    values = [0, 1, 2, 100]
    for kind in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32",
                 "UINT64", "BOOL"):  # fmt: skip
        proto = model([make_node("Cast", ["c"], ["f"], to=1), make_node("Mul", ["x", "f"], ["y"])], (1, 4))
        proto.graph.initializer.append(helper.make_tensor("c", getattr(TensorProto, kind), [4], values))
        path = save(tmp_path / f"{kind}.onnx", proto)
        expected = [bool(v) for v in values] if kind == "BOOL" else values
        assert ours(path, np.ones((1, 4), np.float32))[0].tolist() == [[float(v) for v in expected]], kind


# -- refusals -------------------------------------------------------------------------------------------------------------


def test_unsupported_operators_are_named(tmp_path: Path) -> None:
    for op, domain, says in (
        ("NonMaxSuppression", "", "how many boxes come out"),
        ("LSTM", "", "recurrent"),
        ("FusedConv", "com.microsoft", "belongs to a runtime"),
        ("Frobnicate", "mine", "the domain 'mine' is not read"),
        ("Trunc", QONNX, "cutting bits"),
        ("QLinearConv", "", "quantized to integers already"),
    ):
        nodes = [
            make_node(op, ["x", "c", "c"], ["t"], name="/body/body.1/odd/It", domain=domain),
            make_node("Relu", ["t"], ["y"]),
        ]
        path = save(tmp_path / "m.onnx", model(nodes, SHAPE, {"c": randn(1)}, domains=[domain] if domain else []))
        error = refused(path, UnsupportedError, op, f"body.1.odd ({op} '/body/body.1/odd/It')", says, "fix: ")
        assert error.exit_code == 1
    # What no output needs may be anything.
    nodes = [make_node("LSTM", ["x"], ["t"]), make_node("Relu", ["x"], ["y"])]
    bdnet_deploy.load(save(tmp_path / "m.onnx", model(nodes, SHAPE)))


def test_control_flow_that_depends_on_the_data(tmp_path: Path) -> None:
    def branch(op: str) -> Any:
        return helper.make_graph([make_node(op, ["x"], ["o"])], op, [], [helper.make_empty_tensor_value_info("o")])

    nodes = [
        make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        make_node("Greater", ["m", "c"], ["b"]),
        make_node("If", ["b"], ["y"], name="gate", then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, {"c": np.float32(0)}))
    refused(path, UnsupportedError, "control flow that depends on the data", "gate", "torch.where")
    body = helper.make_graph([make_node("Identity", ["c"], ["d"]), make_node("Relu", ["v"], ["w"])], "body",
                             [helper.make_empty_tensor_value_info(n) for n in ("i", "c", "v")],
                             [helper.make_empty_tensor_value_info(n) for n in ("d", "w")])  # fmt: skip
    nodes = [make_node("Loop", ["n", "", "x"], ["y"], name="again", body=body)]
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, {"n": np.int64(3)}))
    refused(path, UnsupportedError, "control flow that depends on the data", "again")


def test_shapes_that_depend_on_the_data(tmp_path: Path) -> None:
    nodes = [
        make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        make_node("Cast", ["m"], ["i"], to=7),
        make_node("Concat", ["i1", "c"], ["s"], axis=0),
        make_node("Reshape", ["x", "s"], ["y"], name="free"),
    ]
    nodes.insert(2, make_node("Unsqueeze", ["i", "axes"], ["i1"]))
    constants = {"c": np.array([-1], np.int64), "axes": np.array([0], np.int64)}
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, constants))
    refused(
        path, UnsupportedError, "'Reshape' cannot be carried over", "free", "its shape depends on values of the input"
    )


def test_inputs(tmp_path: Path) -> None:
    relu = [make_node("Relu", ["x"], ["y"])]
    two = model([make_node("Add", ["x", "z"], ["y"])], SHAPE)
    two.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, SHAPE))
    refused(save(tmp_path / "two.onnx", two), UnsupportedError, "several inputs", "x, z")
    no = model([make_node("Constant", [], ["y"], value_float=1.0)], SHAPE)
    del no.graph.input[:]
    refused(save(tmp_path / "no.onnx", no), ModelFileError, "no input")
    ints = save(tmp_path / "ints.onnx", model(relu, SHAPE, input_type=TensorProto.INT64))
    refused(ints, UnsupportedError, "'x' is not of a float type")
    free = save(tmp_path / "free.onnx", model(relu, ["N", 4, "H", None]))
    refused(free, UnsupportedError, "have no size in the file: 2 ('H'), 3 ('?')", "--input 1x4x224x224")
    assert bdnet_deploy.load(free, inputs=[(1, 4, 5, 6)]).sample_shape == (5, 6, 4)
    refused(free, UsageError, "cannot have the shape 1x3x5x6", "NxXx".replace("Xx", "4xHx?"), inputs=[(1, 3, 5, 6)])
    refused(free, BdnetError, "several inputs", inputs=[(1, 4, 5, 6), (1, 2)])
    for strange in ((1, 4, 1 << 40, 8), (1, 4, 0, 8), (1, -4, 8, 8)):
        refused(save(tmp_path / "strange.onnx", model(relu, strange)), ModelFileError, "no network takes that")
    batch = save(tmp_path / "batch.onnx", model(relu, (8, 4, 8, 8)))
    refused(batch, UsageError, "the batch of the input 'x' is 8")
    proto = model(relu, SHAPE)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    unknown = save(tmp_path / "unknown.onnx", proto)
    refused(unknown, UsageError, "does not say the shape", "--input")
    assert bdnet_deploy.load(unknown, inputs=[SHAPE]).sample_shape == (8, 8, 4)
    # Files of IR version 3 list their initializers among the inputs.
    old = model([conv("x", "y")], SHAPE, {"w": randn(4, 4, 3, 3)}, opset=9)
    old.ir_version = 3
    old.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (4, 4, 3, 3)))
    check(save(tmp_path / "old.onnx", old))


def test_nan_is_named(tmp_path: Path) -> None:
    w = randn(4, 4, 3, 3)
    w[1, 2, 0, 0] = np.nan
    path = save(tmp_path / "m.onnx", model([conv("x", "y", name="c1")], SHAPE, {"w": w}))
    error = refused(path, UnsupportedError, "the initializer 'w' holds NaN")
    assert error.exit_code == 1


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", model([conv("x", "y", name="/a/Conv")], SHAPE, {"w": randn(4, 3, 3, 3)}))
    refused(path, ModelFileError, "the node Conv cannot be run", "a (Conv '/a/Conv')", "1x4x8x8, 4x3x3x3")


def test_old_opsets(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", model([make_node("Relu", ["x"], ["y"])], SHAPE, opset=6))
    refused(path, UnsupportedError, "opset 6", "convert")


def external(path: Path, location: str, *, offset: str = "0", length: str | None = None) -> Path:
    proto = model([conv("x", "y")], SHAPE)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4, 3, 3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    proto.graph.initializer.append(tensor)
    return save(path, proto)


def test_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    w = randn(4, 4, 3, 3)
    (folder / "m.data").write_bytes(b"\0" * 64 + w.tobytes())
    path = external(folder / "m.onnx", "m.data", offset="64", length=str(w.nbytes))
    check(path)
    (tmp_path / "secret").write_bytes(w.tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    for location in ("../secret", str(tmp_path / "secret"), "link", "", "a\0b", "model/../../secret"):
        refused(external(path, location), ModelFileError, "outside of the model's folder")
    refused(
        external(path, "no.data"), ModelFileError, "the weights are missing: there is no file 'no.data'", str(folder)
    )
    refused(external(path, "m.data", offset="65"), ModelFileError, "too short")
    refused(external(path, "m.data", offset="-1"), ModelFileError, "damaged")
    refused(external(path, "m.data", length="3"), ModelFileError, "damaged")
    refused(external(path, "m.data", offset="9" * 30), ModelFileError, "damaged")


# -- QONNX ----------------------------------------------------------------------------------------------------------------


def quant(x: str, y: str, scale: str, bits: str, *, domain: str = QONNX, **attributes: Any) -> Any:
    return make_node(
        "Quant",
        [x, scale, "zero", bits],
        [y],
        domain=domain,
        **{"signed": 1, "narrow": 1, "rounding_mode": "ROUND", **attributes},
    )


@pytest.mark.parametrize("domain", [QONNX, "onnx.brevitas"])
def test_a_qonnx_network(domain: str, tmp_path: Path) -> None:
    """Bipolar and narrow 2-bit weights and activations, latent weights in the file, scales per tensor and per channel."""
    constants = {
        "w0": randn(4, 4, 3, 3), "w1": randn(6, 4, 3, 3), "w2": 0.3 * randn(6, 6, 3, 3), "w3": randn(3, 6),
        "one": np.float32(1), "tenth": np.float32(0.1), "zero": np.float32(0), "two": np.float32(2),
        "per_filter": np.abs(randn(6, 1, 1, 1)), "gamma": np.abs(randn(6)), "beta": randn(6), "mean": randn(6),
        "var": np.abs(randn(6)),
    }  # fmt: skip

    def bipolar(x: str, y: str, scale: str) -> Any:
        return make_node("BipolarQuant", [x, scale], [y], domain=domain, name=f"q_{y}")

    nodes = [
        conv("x", "s", "w0", "stem"),
        bipolar("s", "a1", "tenth"), bipolar("w1", "b1", "per_filter"), conv("a1", "c1", "b1", "conv1"),
        make_node("BatchNormalization", ["c1", "gamma", "beta", "mean", "var"], ["n1"]),
        quant("n1", "a2", "one", "two", domain=domain), quant("w2", "b2", "tenth", "two", domain=domain), conv("a2", "c2", "b2", "conv2"),
        make_node("GlobalAveragePool", ["c2"], ["p"]), make_node("Flatten", ["p"], ["f"]),
        bipolar("f", "a3", "one"), bipolar("w3", "b3", "tenth"), make_node("Gemm", ["a3", "b3"], ["y"], transB=1, name="fc"),
    ]  # fmt: skip
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, constants, domains=[domain]))
    imported = bdnet_deploy.load(path)
    assert layers(imported.graph) == [(DType.F64, DType.F64), (BIT, BIT), (TRIT, TRIT), (BIT, BIT)]
    names = [n.source for n in imported.graph.nodes if isinstance(n.op, Conv2d | Linear)]
    assert names == ["stem", "conv1", "conv2", "fc"]
    x = randn(5, *SHAPE[1:])
    expected = np.concatenate([ours(path, row[None])[0] for row in x])
    got = evaluate(imported.graph, [np.moveaxis(x, 1, -1).astype(np.float64)])[imported.graph.outputs[0].name]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def reference_quant(
    x: np.ndarray, scale: float, zero: float, bits: int, signed: int, narrow: int, mode: str
) -> np.ndarray:
    """The definition of Quant in numpy, element by element."""
    lowest = -(2 ** (bits - 1)) + narrow if signed else 0
    highest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    result = []
    for v in (x / np.float32(scale) + np.float32(zero)).ravel():
        if bits == 1 and signed:
            q = 1.0 if v >= 0 else -1.0
        else:
            v = min(max(float(v), lowest), highest)
            below, size = np.floor(v), abs(v)
            away, half = np.ceil(size), size - np.floor(size) == 0.5
            nearest = np.round(size)
            q = {
                "ROUND": float(np.round(v)), "CEIL": float(np.ceil(v)), "FLOOR": float(below),
                "UP": np.copysign(away, v), "DOWN": float(int(v)),
                "HALF_UP": np.copysign(away if half else nearest, v),
                "HALF_DOWN": np.copysign(np.floor(size) if half else nearest, v),
            }[mode]  # fmt: skip
        result.append((q - zero) * scale)
    return np.array(result, np.float32).reshape(x.shape)


@pytest.mark.parametrize("mode", ["ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"])
@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "zero"), [(1, 1, 0, 0), (2, 1, 1, 0), (2, 0, 0, 0), (4, 1, 0, 0), (8, 0, 1, 3)]
)
def test_quant(bits: int, signed: int, narrow: int, zero: float, mode: str, tmp_path: Path) -> None:
    node = make_node(
        "Quant", ["x", "s", "z", "b"], ["y"], domain=QONNX, signed=signed, narrow=narrow, rounding_mode=mode
    )
    constants = {"s": np.float32(0.25), "z": np.float32(zero), "b": np.float32(bits)}
    path = save(tmp_path / "m.onnx", model([node], (1, 400), constants, domains=[QONNX]))
    x = np.concatenate([randn(1, 300), np.arange(-50, 50, dtype=np.float32)[None] / 8], 1)
    assert np.array_equal(ours(path, x)[0], reference_quant(x, 0.25, zero, bits, signed, narrow, mode))


def test_wide_weights_and_odd_quantizers(tmp_path: Path) -> None:
    constants = {"w": randn(4, 4, 3, 3), "s": np.float32(0.05), "zero": np.float32(0), "eight": np.float32(8)}
    nodes = [quant("w", "q", "s", "eight"), conv("x", "y", "q")]
    imported = bdnet_deploy.load(save(tmp_path / "m.onnx", model(nodes, SHAPE, constants, domains=[QONNX])))
    w = imported.graph.nodes[0].inputs[1].data
    assert np.array_equal(np.round(w / 0.05, 4), np.rint(w / 0.05))
    bad = save(
        tmp_path / "bad.onnx",
        model([quant("x", "y", "s", "eight", rounding_mode="ODD")], SHAPE, constants, domains=[QONNX]),
    )
    refused(bad, UnsupportedError, "its rounding mode is 'ODD'", "HALF_EVEN")


@pytest.mark.parametrize(
    ("kind", "zero", "levels"), [("int8", -5, 256), ("uint8", 37, 256), ("int16", 100, 65536), ("uint16", 30000, 65536), (None, 0, 256)]
)  # fmt: skip
def test_integers_of_activations(kind: str | None, zero: int, levels: int, tmp_path: Path) -> None:
    """QuantizeLinear and DequantizeLinear around moves and pools, with the zero point as initializer or Constant."""
    scale = np.float32(0.017 if levels == 256 else 1e-4)
    constants = {"s": scale, "w": randn(5, 4, 3, 3)}
    between = [
        make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        make_node("Transpose", ["p"], ["t"], perm=[0, 1, 3, 2]),
    ]
    zeros = ["z"] if kind else []
    if kind == "int8":
        constants["z"] = np.int8(zero)
        nodes = []
    elif kind:
        nodes = [make_node("Constant", [], ["z"], value=onnx.numpy_helper.from_array(np.array(zero, kind)))]
    else:
        nodes = []
    nodes += [
        make_node("QuantizeLinear", ["x", "s", *zeros], ["q"]),
        *between,
        make_node("DequantizeLinear", ["t", "s", *zeros], ["d"]),
        conv("d", "y"),
    ]
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, constants, opset=21))
    imported = bdnet_deploy.load(path)
    (op,) = [n.op for n in imported.graph.nodes if isinstance(n.op, Quantize)]
    assert op.scale == pytest.approx(float(scale), rel=1e-6) and op.dtype is (
        DType.I8 if levels == 256 and kind else DType.U8 if levels == 256 else DType.I16
    )
    (reason,) = imported.graph.reasons.values()
    assert reason.startswith(f"activation has {levels} levels ")
    x = randn(1, *SHAPE[1:])
    got = ours(path, x)[0]
    np.testing.assert_allclose(
        got, by_hand(x, float(scale), zero, kind or "uint8", constants["w"]), rtol=1e-4, atol=1e-4
    )
    real = evaluate(imported.graph, [np.moveaxis(x, 1, -1).astype(np.float64)])[imported.graph.outputs[0].name]
    np.testing.assert_allclose(np.moveaxis(real, -1, 1), got, rtol=1e-4, atol=1e-4)


def by_hand(x: np.ndarray, scale: float, zero: int, kind: str, w: np.ndarray) -> np.ndarray:
    info = np.iinfo(kind)
    levels = (np.clip(np.rint(x / np.float32(scale)) + zero, info.min, info.max) - zero) * scale
    pooled = levels.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5)).transpose(0, 1, 3, 2)
    return torch.nn.functional.conv2d(
        torch.from_numpy(pooled).double(), torch.from_numpy(w).double(), padding=1
    ).numpy()


def test_a_network_that_onnxruntime_quantized(tmp_path: Path) -> None:
    """QDQ of its static quantization: in float the outputs are onnxruntime's; in fixed point within two of their steps."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.ReLU6(), nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip
    x = randn(12, 3, 8, 8)
    torch.onnx.export(net, torch.from_numpy(x[:1]), str(tmp_path / "f.onnx"), dynamo=False, input_names=["x"])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        rows = iter([{"x": row[None]} for row in x])

        def get_next(self) -> Any:
            return next(self.rows, None)

    path = tmp_path / "q.onnx"
    quantization.quantize_static(
        str(tmp_path / "f.onnx"), str(path), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )
    imported = bdnet_deploy.load(path)
    expected = np.concatenate([runtime(path, row[None])[0] for row in x])
    samples = np.moveaxis(x, 1, -1)
    step = [n.op.scale for n in imported.graph.nodes if isinstance(n.op, Quantize)][-1]
    for numerics, steps in (("float", 0.01), ("fixed16", 2.01), ("fixed8", 2.01)):
        lowered = lower(imported.graph, numerics, samples=samples)
        got = check_host(lowered, samples.astype(np.float64))
        assert np.abs(got - expected).max() <= steps * step, numerics


def test_quantizers_that_are_refused(tmp_path: Path) -> None:
    for zero, says in (
        (np.int32(0), "of a type that is not known here"),
        (None, "the type of its integers is not known"),
    ):
        nodes = [
            make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ]
        constants = {"s": np.float32(0.1), "z": zero}
        if zero is None:
            nodes.insert(0, make_node("Identity", ["a"], ["z"]))
            constants = {"s": np.float32(0.1), "a": np.int8(0)}
        refused(save(tmp_path / "m.onnx", model(nodes, SHAPE, constants)), UnsupportedError, says, "QuantizeLinear")


@pytest.mark.parametrize(
    ("bits", "signed", "narrow"), [(8, 1, 0), (8, 0, 0), (4, 1, 1), (3, 0, 0), (2, 0, 0), (12, 1, 0)]
)
def test_wide_quant_of_activations(bits: int, signed: int, narrow: int, tmp_path: Path) -> None:
    """QONNX's Quant in front of weights that it quantizes, too."""
    constants = {
        "w": randn(5, 4, 3, 3),
        "s": np.float32(0.05),
        "zero": np.float32(0),
        "bits": np.float32(bits),
        "eight": np.float32(8),
    }
    nodes = [
        quant("x", "a", "s", "bits", signed=signed, narrow=narrow),
        quant("w", "q", "s", "eight"),
        conv("a", "y", "q"),
    ]
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, constants, domains=[QONNX]))
    imported = bdnet_deploy.load(path)
    count = 2**bits - narrow
    (reason,) = imported.graph.reasons.values()
    assert reason.startswith(f"activation has {count} levels ({bits} bits); weights have ")
    x = randn(1, *SHAPE[1:])
    got = evaluate(imported.graph, [np.moveaxis(x, 1, -1).astype(np.float64)])[imported.graph.outputs[0].name]
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), ours(path, x)[0], rtol=1e-4, atol=1e-4)


# -- damaged and hostile files --------------------------------------------------------------------------------------------


def test_not_onnx(tmp_path: Path) -> None:
    for content in (b"", b"x", b"\x08\x07", b"PK\x03\x04" + bytes(100), os.urandom(300)):
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        refused(path, ModelFileError, "m.onnx")
    refused(tmp_path / "none.onnx", ModelFileError, "no such file")
    (tmp_path / "folder.onnx").mkdir()
    refused(tmp_path / "folder.onnx", ModelFileError, "folder")


HOSTILE: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "huge constant": ([make_node("ConstantOfShape", ["s"], ["t"]), make_node("Add", ["x", "t"], ["y"])], {"s": np.array([1 << 40], np.int64)}),
    "huge expansion": ([make_node("Expand", ["x", "s"], ["y"])], {"s": np.array([1 << 22, 4, 8, 8], np.int64)}),
    "huge tiling": ([make_node("Tile", ["x", "s"], ["y"])], {"s": np.array([1, 1 << 20, 1 << 20, 1], np.int64)}),
    "huge padding": ([make_node("Pad", ["x", "s"], ["y"])], {"s": np.array([0, 0, 1 << 30, 0, 0, 0, 0, 0], np.int64)}),
    "huge range": ([make_node("Range", ["a", "b", "c"], ["t"]), make_node("Add", ["x", "t"], ["y"])],
                   {"a": np.float32(0), "b": np.float32(1e30), "c": np.float32(1e-3)}),
    "huge broadcast": ([make_node("Add", ["a", "b"], ["t"]), make_node("Add", ["x", "t"], ["y"])],
                       {"a": np.zeros((40000, 1), np.float32), "b": np.zeros((1, 40000), np.float32)}),
    "huge product": ([make_node("MatMul", ["a", "b"], ["t"]), make_node("Add", ["x", "t"], ["y"])],
                     {"a": np.zeros((40000, 1), np.float32), "b": np.zeros((1, 40000), np.float32)}),
    "huge pads": ([make_node("Conv", ["x", "w"], ["y"], pads=[1 << 30] * 4)], {"w": np.zeros((1, 4, 3, 3), np.float32)}),
    "huge resize": ([make_node("Resize", ["x", "", "s"], ["y"])], {"s": np.float32([1, 1, 1e9, 1])}),
    "no stride": ([make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0])], {}),
    "no groups": ([make_node("Conv", ["x", "w"], ["y"], group=0)], {"w": np.zeros((4, 4, 3, 3), np.float32)}),
    "odd kernel": ([make_node("AveragePool", ["x"], ["y"], kernel_shape=[-1, 1 << 62])], {}),
    "least integer": ([make_node("Div", ["a", "b"], ["t"]), make_node("Expand", ["x", "t"], ["y"])],
                      {"a": np.array([-(2**63)], np.int64), "b": np.array([-1], np.int64)}),
    "division by zero": ([make_node("Div", ["a", "b"], ["t"]), make_node("Expand", ["x", "t"], ["y"])],
                         {"a": np.array([4], np.int64), "b": np.array([0], np.int64)}),
    "attribute of another type": ([make_node("Softmax", ["x"], ["y"], axis="one")], {}),
    "out of range": ([make_node("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([1 << 40], np.int64)}),
    "reads what nobody writes": ([make_node("Add", ["x", "ghost"], ["y"])], {}),
    "reads itself": ([make_node("Add", ["x", "y"], ["y"])], {}),
    "too many operands": ([make_node("Relu", ["x", "x", "x"], ["y"])], {}),
    "no operands": ([make_node("Concat", [], ["t"], axis=0), make_node("Add", ["x", "t"], ["y"])], {}),
    "no output": ([make_node("Relu", ["x"], ["z"])], {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_nodes(kind: str, tmp_path: Path) -> None:
    nodes, constants = HOSTILE[kind]
    path = save(tmp_path / "m.onnx", model(nodes, SHAPE, constants))
    start = time.monotonic()
    with pytest.raises(BdnetError) as info:
        bdnet_deploy.load(path)
    assert info.value.exit_code == 1 and "m.onnx" in str(info.value)
    assert time.monotonic() - start < 5


def test_hostile_sizes(tmp_path: Path) -> None:
    proto = model([conv("x", "y")], SHAPE)
    for dims, data in (([1 << 40], b""), ([1 << 20, 1 << 20], b"\0" * 8), ([-1], b""), ([4, 4, 3, 3], b"\0" * 5)):
        del proto.graph.initializer[:]
        proto.graph.initializer.append(TensorProto(name="w", data_type=1, dims=dims, raw_data=data))
        refused(save(tmp_path / "m.onnx", proto), ModelFileError, "the tensor 'w' cannot be read")


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    for calls in (1, 2):
        names = [f"t{i}" for i in range(calls)]
        nodes = [make_node("F", ["x"], [name], domain="mine") for name in names]
        body = [*nodes, make_node("Sum", names, ["y"])]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
        function = helper.make_function("mine", "F", ["x"], ["y"], body, imports)
        call = make_node("F", ["x"], ["y"], domain="mine")
        path = save(tmp_path / "m.onnx", model([call], SHAPE, functions=[function], domains=["mine"]))
        refused(path, ModelFileError, "out of all proportion")


def test_names_that_are_not_text(tmp_path: Path) -> None:
    proto = model(
        [make_node("Relu", ["x"], ["y"], name="A" * 5000 + "\n\x1b[31m"), make_node("Loop", ["x"], ["z"])], SHAPE
    )
    data = proto.SerializeToString().replace(b"AAAA", b"\xff\xfe\x00A")
    (tmp_path / "m.onnx").write_bytes(data)
    graph = bdnet_deploy.load(tmp_path / "m.onnx").graph
    assert all(len(n.source) <= 200 and n.source.isprintable() for n in graph.nodes)


def mutations(data: bytes, generator: random.Random) -> bytes:
    content = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8))):
        at = generator.randrange(len(content))
        kind = generator.randrange(4)
        if kind == 0:
            content[at] = generator.randrange(256)
        elif kind == 1:
            content[at] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del content[at : at + generator.randrange(1, 9)]
        else:
            content[at:at] = generator.randbytes(generator.randrange(1, 9))
    return bytes(content)


def seed_files() -> list[bytes]:
    constants = {
        "w": randn(4, 4, 3, 3), "b": signs(4, 4, 3, 3), "one": np.float32(1), "minus": np.float32(-1),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "to": np.array([1, -1], np.int64),
        "sizes": np.float32([1, 1, 2, 2]), "i": np.array([2, 0, 1, 3], np.int64),
    }  # fmt: skip
    nodes = [
        conv("x", "s"), make_node("GreaterOrEqual", ["s", "one"], ["g"]), make_node("Where", ["g", "one", "minus"], ["t"]),
        make_node("Pad", ["t", "pads"], ["p"]), make_node("Conv", ["p", "b"], ["c"]), make_node("Gather", ["c", "i"], ["h"], axis=1),
        make_node("MaxPool", ["h"], ["m"], kernel_shape=[2, 2], strides=[2, 2]), make_node("Resize", ["m", "", "sizes"], ["r"]),
        make_node("ReduceMean", ["r"], ["e"], axes=[2, 3]), make_node("Reshape", ["e", "to"], ["y"]),
    ]  # fmt: skip
    branch = {
        "then_branch": helper.make_graph([make_node("Relu", ["x"], ["o"])], "a", [], [helper.make_empty_tensor_value_info("o")]),
        "else_branch": helper.make_graph([make_node("Neg", ["x"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")]),
    }  # fmt: skip
    chosen = model([make_node("If", ["c"], ["y"], **branch)], SHAPE, {"c": np.array(True)})
    return [model(nodes, SHAPE, constants, opset=17).SerializeToString(), chosen.SerializeToString()]


def fuzz(folder: Path, rounds: int, seed: int) -> None:
    """Whatever a file holds: it is imported, or refused with an error that a user can read."""
    generator = random.Random(seed)
    path = folder / "m.onnx"
    for data in seed_files():
        path.write_bytes(data)
        bdnet_deploy.load(path)
        for _ in range(rounds):
            path.write_bytes(mutations(data, generator))
            start = time.monotonic()
            try:
                bdnet_deploy.load(path)
            except BdnetError as error:
                assert str(error)
            assert time.monotonic() - start < 20


@pytest.mark.filterwarnings("ignore")
def test_mutations(tmp_path: Path) -> None:
    fuzz(tmp_path, 60, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_mutations(tmp_path: Path) -> None:
    fuzz(tmp_path, 1000, 2)
