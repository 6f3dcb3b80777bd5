"""Checks that the host library's operators work in an interpreter; started by :mod:`.tensorflow_lite` as a process.

``python tensorflow_lite_check.py litert|tensorflow <library>`` runs a model with all operators whose output numpy computes
too, and exits with 0 if they are equal.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def model() -> tuple[bytes, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A model, an input and its output: quantize, depth-wise, bconv, max pool, dequantize."""
    from bdnet_deploy.export.tflite import extended
    from bdnet_deploy.export.tflite.builder import F32, I32, Builder
    from bdnet_deploy.export.tflite.flatbuffer import to_bytes
    from bdnet_deploy.export.tflite.packing import pack
    from bdnet_deploy.export.tflite.schema import ABSENT, Model, Operator

    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 6, 7, 40)).astype(np.float32)
    filters, taps = (rng.choice(np.array([-1, 1], np.int8), shape) for shape in ((33, 1, 1, 40), (3, 3, 40)))
    depthwise_limit, limit = rng.integers(-2, 3, 40), rng.integers(15, 25, 33)
    content = Model(description="check")
    b = Builder(content)
    x = b.tensor("x", image.shape)
    content.inputs = [x]
    bits = b.lce_quantize(x, "bits")
    options = extended.Options(40, 40, pad_top=1, pad_bottom=1, pad_left=1, pad_right=1)
    weights, threshold = b.constant("taps", pack(taps)), b.constant("threshold", depthwise_limit.astype(np.int32))
    inputs = (bits, ABSENT, weights, ABSENT, ABSENT, ABSENT, threshold)
    content.operators.append(
        Operator(extended.NAME, inputs, (b.tensor("depthwise", (1, 6, 7, 2), I32),), custom_options=options.to_bytes())
    )
    (middle,) = content.operators[-1].outputs
    second = b.tensor("bconv", (1, 6, 7, 2), I32)
    b.lce_bconv2d(middle, b.constant("w", pack(filters)), second, 40, threshold=b.constant("t", limit.astype(np.int32)))
    pooled = b.tensor("pool", (1, 3, 3, 2), I32)
    from flatbuffers import flexbuffers

    window = {"filter_height": 2, "filter_width": 2, "padding": 1, "stride_height": 2, "stride_width": 2}
    pool = Operator("LceBMaxPool2d", (second,), (pooled,), custom_options=bytes(flexbuffers.Dumps(window)))
    content.operators.append(pool)
    content.outputs = [b.lce_dequantize(pooled, 33, F32, "y")]
    sign = np.where(image < 0, -1, 1)
    sign = np.where(extended.accumulators(sign, taps, options) < depthwise_limit, -1, 1)
    negative = (40 - sign @ filters[:, 0, 0].T.astype(np.int64)) // 2
    sign = np.where(negative > limit, -1, 1)[:, :, :6]
    expected = sign.reshape(1, 3, 2, 3, 2, 33).max((2, 4)).astype(np.float32)
    return to_bytes(content), image, expected


def main(name: str, library: str) -> int:
    if name == "tensorflow":
        import tensorflow

        kind: Any = tensorflow.lite.Interpreter
        load: Any = tensorflow.lite.experimental.load_delegate
    else:
        from ai_edge_litert.interpreter import Interpreter, load_delegate

        kind, load = Interpreter, load_delegate
    content, image, expected = model()
    interpreter = kind(model_content=content, experimental_delegates=[load(library)])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    if not np.array_equal(got, expected):
        sys.stderr.write("the output of the check is wrong\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
