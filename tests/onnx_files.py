"""ONNX files written by hand, and what onnxruntime and the importer make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from bdnet_deploy.importers.onnx import read  # noqa: E402

make_node = helper.make_node
QONNX = "qonnx.custom_op.general"


def model(
    nodes: Sequence[Any],
    shape: Sequence[int | str | None],
    constants: Mapping[str, Any] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    opset: int = 18,
    functions: Sequence[Any] = (),
    domains: Sequence[str] = (),
    input_type: int = TensorProto.FLOAT,
) -> Any:
    """A model of one input ``x``; the outputs have no types, which nobody here asks for."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", input_type, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(
        graph, opset_imports=imports, functions=list(functions), ir_version=8 if opset < 20 else 10
    )


def save(path: Path, proto: Any) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def runtime(path: Path, x: np.ndarray) -> list[np.ndarray]:
    """onnxruntime without optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, {session.get_inputs()[0].name: x})]


def ours(path: Path, x: np.ndarray) -> list[np.ndarray]:
    """The interpreter module itself."""
    module = read(path, x.shape).module
    with torch.no_grad():
        y = module.run(torch.from_numpy(x.copy()))
    return [t.numpy() for t in (y if isinstance(y, tuple) else (y,))]
