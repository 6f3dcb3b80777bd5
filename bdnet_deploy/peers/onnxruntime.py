"""Runs ``.onnx`` files in stock onnxruntime, on one thread.

:func:`run` does it in this process, for files that are known to be sound; :func:`runtime` in one of its own, for those
of users: a model may crash onnxruntime or keep it busy for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import require
from bdnet_deploy.peers import PeerError
from bdnet_deploy.peers.jobs import Runtime

Array = npt.NDArray[Any]
_ERROR_ONLY = 3


def run(
    model: bytes,
    inputs: Array | Sequence[Array],
    outputs: Sequence[str] | None = None,
    *,
    optimize: bool = True,
) -> list[Array]:
    """Run one model on many samples.

    Args:
        model: the content of an ``.onnx``.
        inputs: (N, ...) samples of the model's input, or one such array per input; a model of batch 1 runs N times.
        outputs: names of tensors to return, also inner ones (maps are NCHW there); default: the model's outputs.
        optimize: let onnxruntime fuse operators, as it does for users (a scale moves into float weights then).

    Returns:
        One (N, ...) array per output.

    Raises:
        MissingPackageError: onnxruntime (or, for inner tensors, onnx) is not installed.
        PeerError: onnxruntime refused the model or the inputs.
    """
    ort = require("onnxruntime", extra="onnx")
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if outputs is not None:
        model = _expose(model, outputs)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_ONLY
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        ports = session.get_inputs()
        names = [port.name for port in ports]
        wanted = list(outputs) if outputs is not None else None
        if len(names) != len(arrays):
            raise PeerError(
                f"the model has {len(names)} inputs, {len(arrays)} were given", fix="give one array per input"
            )
        if ports and ports[0].shape[0] == 1 and len(arrays[0]) != 1:
            rows = [
                session.run(wanted, {name: a[n : n + 1] for name, a in zip(names, arrays)})
                for n in range(len(arrays[0]))
            ]
            return [np.concatenate(parts) for parts in zip(*rows)]
        return [np.asarray(y) for y in session.run(wanted, dict(zip(names, arrays)))]
    except PeerError:
        raise
    except Exception as error:  # onnxruntime has a dozen exception classes that share no base but this
        raise PeerError("onnxruntime refused the model or its inputs", why=str(error)) from error


def runtime(*, optimize: bool = True) -> Runtime:
    """onnxruntime in a process of its own.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    require("onnxruntime", extra="onnx")
    return Runtime("onnxruntime", "onnxruntime", (("optimize", optimize),))


def _expose(model: bytes, names: Sequence[str]) -> bytes:
    """Make inner tensors outputs."""
    onnx = require("onnx", extra="onnx")
    proto = onnx.load_model_from_string(model)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in known)
    return bytes(proto.SerializeToString())
