"""The operator of our own profile, ``BdDepthwiseConv2d``."""

from __future__ import annotations

from bdnet_deploy.export.tflite import extended
from bdnet_deploy.export.tflite.schema import TensorKind
from bdnet_deploy.tflite_reference.calls import Array, Call, Kernel


def _depthwise(call: Call) -> list[Array]:
    options = extended.Options.from_bytes(call.op.custom_options)
    if call.out.kind is TensorKind.INT8:
        return extended.evaluate(call.values, options, "int8", call.out_scale, call.out_zero)
    return extended.evaluate(call.values, options, call.out.kind.numpy)


KERNELS: dict[str, Kernel] = {extended.NAME: _depthwise}
