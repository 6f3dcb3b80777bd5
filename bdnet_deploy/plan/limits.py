"""What a step may be: kernels that the runtime has, and numbers that fit the format's fields."""

from __future__ import annotations

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import DType
from bdnet_deploy.plan.kernels import kernel_names
from bdnet_deploy.plan.plan import PlanStep

_U8, _U16 = 0xFF, 0xFFFF
#: Channels up to which sums of products of bits and trits fit 16 bits.
MATMUL_I16_CHANNELS = 32767
#: Pixels that a global average pool may sum: 32-bit sums of 16-bit values; counts that f32 holds exactly.
_POOLED = {DType.I16: 1 << 16, DType.I8: 1 << 23, DType.U8: 1 << 23, DType.F32: 1 << 24}


def check_step(step: PlanStep) -> None:
    """Refuse what the format or the kernels cannot hold.

    Raises:
        UnsupportedError: names the layer, the number and its limit.
    """
    for kernel in (step.kernel, step.epilogue_kernel):
        if kernel and kernel not in kernel_names():
            raise UnsupportedError(f"the runtime has no kernel {kernel}", where=step.name)
    numbers = {
        "window": (max(step.window), _U8),
        "stride": (max(step.strides), _U8),
        "dilation": (max(step.dilation), _U8),
        "padding": (max(step.pad_top_left), _U8),
        "group count": (step.groups, _U16),
        "output side or channel count": (max(*step.out_shape, *(t.channels for t in step.outputs)), _U16),
        "input side or channel count": (max(max(t.height, t.width, t.channels) for t in step.inputs), _U16),
    }
    if (step.kernel or "").startswith("bd_gap_"):
        source = step.inputs[0]
        numbers["pixel count of a global average pool"] = (source.height * source.width, _POOLED[source.dtype])
    for what, (number, limit) in numbers.items():
        if number > limit:
            raise UnsupportedError(f"a {what} of {number} is beyond the runtime's limit of {limit}", where=step.name)
