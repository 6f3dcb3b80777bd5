"""Plan to ``.bdn``: the one model format of the runtime (docs/bdn-format.md)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bdnet_deploy import __version__, bdn_format
from bdnet_deploy.bdn_format import ABSENT, NONE, Kind, Place
from bdnet_deploy.graph import NUMERICS, Array, DType, Value, evaluate
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.plan import Epilogue, Plan, PlanStep, PlanTensor
from bdnet_deploy.plan.packings import epilogue_packing
from bdnet_deploy.plan.plan import format_code
from bdnet_deploy.plan.schedule import producers

_KINDS = {"window": Kind.WINDOW, "accumulate": Kind.ACCUMULATE, "whole": Kind.WHOLE}
#: A test vector up to this size is stored literally, else as a seed and a checksum.
LITERAL_LIMIT = 4096


def write_bdn(
    plan: Plan,
    *,
    io: IODescription | None = None,
    meta: dict[str, Any] | None = None,
    sample: Array | None = None,
    model_version: int = 0,
) -> bytes:
    """The model file.

    Args:
        plan: from :func:`bdnet_deploy.plan.make_plan`.
        io: what the inputs and outputs mean.
        meta: facts about the file's origin, JSON-able; the tool's version and the numerics are added.
        sample: (1, ...) one input as the graph takes it, for the test vector; None for the format's generator.
        model_version: the user's own.
    """
    constants = _Constants()
    kernels = plan.kernels
    steps = np.zeros(len(plan.steps), bdn_format.STEP)
    index = {tensor: i for i, tensor in enumerate(plan.tensors)}
    maker = producers(plan.steps)
    start = [moment.first for moment in plan.timeline for _ in moment.names]
    for i, (record, step) in enumerate(zip(steps, plan.steps, strict=True)):
        _fill_step(record, step, index, kernels, constants)
        record["segment"] = step.segment
        for k, tensor in enumerate(step.inputs):
            source = maker.get(tensor)
            if source is not None and source >= start[i]:
                record["source"][k] = i - source
    tensors = np.zeros(len(plan.tensors), bdn_format.TENSOR)
    for record, tensor in zip(tensors, plan.tensors, strict=True):
        _fill_tensor(record, tensor)
    facts = {"made_by": f"bdnet-deploy {__version__}", "numerics": plan.graph.numerics, **(meta or {})}
    if plan.sets:
        facts["sets"] = list(plan.sets)
    records = {bdn_format.RECORD_META: _json(facts), bdn_format.RECORD_MAP: _json(_map(plan))}
    if io is not None:
        records[bdn_format.RECORD_IO] = io.to_json().encode("utf-8")
    if len(plan.graph.inputs) == len(plan.graph.outputs) == 1:
        records[bdn_format.RECORD_TEST] = _test_vector(plan, sample)
    return bdn_format.write(
        model_version=model_version,
        tensor_bytes=plan.tensor_bytes,
        scratch_bytes=plan.scratch_bytes,
        inputs=len(plan.graph.inputs),
        outputs=len(plan.graph.outputs),
        numerics=NUMERICS.index(plan.graph.numerics),
        kernels=kernels,
        tensors=tensors,
        steps=steps,
        constants=bytes(constants.data),
        records=records,
    )


class _Constants:
    """The constants' payload; equal arrays are stored once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._known: dict[bytes, int] = {}

    def add(self, blob: bytes) -> int:
        """Offset of ``blob``, aligned to 16 bytes."""
        if blob not in self._known:
            self.data += bytes(-len(self.data) % 16)
            self._known[blob] = len(self.data)
            self.data += blob
        return self._known[blob]

    def array(self, values: Array | None, dtype: str) -> int:
        return ABSENT if values is None else self.add(np.ascontiguousarray(values, dtype).tobytes())


def _fill_tensor(record: Any, tensor: PlanTensor) -> None:
    record["offset"] = tensor.offset
    record["row_stride"] = tensor.row_stride
    record["height"], record["width"], record["channels"] = tensor.height, tensor.width, tensor.channels
    record["rows_held"] = tensor.rows_held
    record["ring"] = tensor.ring
    record["dtype"] = format_code(tensor.dtype)
    record["place"] = Place[tensor.place.upper()]


def _fill_step(
    record: Any, step: PlanStep, index: dict[PlanTensor, int], kernels: list[str], constants: _Constants
) -> None:
    record["kernel"] = kernels.index(step.kernel) if step.kernel else NONE
    record["epilogue"] = kernels.index(step.epilogue_kernel) if step.epilogue_kernel else NONE
    operands = [index[t] for t in step.inputs] + [NONE] * (2 - len(step.inputs))
    record["in"] = operands
    record["out"] = [NONE if t is None else index[t] for t in (step.trunk, step.packed)]
    record["out_height"], record["out_width"], record["out_channels"] = step.out_shape
    record["groups"] = step.groups
    record["kernel_h"], record["kernel_w"] = step.window
    record["stride_h"], record["stride_w"] = step.strides
    record["dilation_h"], record["dilation_w"] = step.dilation
    record["pad_top"], record["pad_left"] = step.pad_top_left
    record["pad_value"] = step.pad_value
    record["acc_dtype"] = format_code(step.acc_dtype)
    record["weight_planes"] = step.weight_planes
    record["kind"] = _KINDS[step.kind]
    record["rows_per_call"] = step.rows_per_call
    record["zero_point"] = step.zero_point
    record["weights"], record["weights_size"] = ABSENT, 0
    if step.weights is not None:
        blob = np.ascontiguousarray(step.weights, step.weights.dtype.newbyteorder("<")).tobytes()
        record["weights"], record["weights_size"] = constants.add(blob), len(blob)
    record["epilogue_at"] = ABSENT if step.epilogue is None else _add_epilogue(step, step.epilogue, constants)
    record["acc_order"] = step.acc_order
    record["scratch"] = step.scratch


def _add_epilogue(step: PlanStep, epilogue: Epilogue, constants: _Constants) -> int:
    dtype = "<f4" if epilogue.dtype is DType.F32 else "<i4"
    record = np.zeros((), bdn_format.EPILOGUE)
    packing = epilogue_packing(step.epilogue_kernel)
    for name in bdn_format.EPILOGUE_ARRAYS:
        record[name] = ABSENT if packing else constants.array(getattr(epilogue, name), dtype)
    if packing:
        record["mul"] = constants.add(packing.pack(step))
    record["shift"], record["residual_shift"] = epilogue.shift, epilogue.residual_shift
    record["dtype"] = format_code(epilogue.dtype)
    record["residual_channels"] = epilogue.residual_channels
    record["repeats"] = epilogue.repeats
    return constants.add(record.tobytes())


def _map(plan: Plan) -> dict[str, Any]:
    """Which graph values lie in which tensor, and what each step computes: lets ``verify`` decode any step."""
    return {
        "tensors": [[v.name for v in t.values] for t in plan.tensors],
        "steps": [{"name": s.name, "values": [n.name for n in s.nodes]} for s in plan.steps],
        "inputs": [_quantization(v) for v in plan.graph.inputs],
        "outputs": [_quantization(v) for v in plan.graph.outputs],
    }


def _quantization(value: Value) -> dict[str, Any]:
    """What the integers of an input or output mean: real = (q - zero_point) * scale, per channel where they are lists."""
    quant = value.type.quant
    if quant is None:
        return {"name": value.name, "dtype": value.type.dtype.value}
    return {
        "name": value.name,
        "dtype": value.type.dtype.value,
        "scale": quant.scale.tolist(),
        "zero_point": quant.zero_point.tolist(),
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def _test_vector(plan: Plan, sample: Array | None, seed: int = 0x9E3779B9) -> bytes:
    """A literal input and output, or a seed and the output's checksum when they are large or no sample is given."""
    graph = plan.graph
    value = graph.inputs[0].type
    if sample is None:
        x = bdn_format.test_input(seed, value.shape, format_code(value.dtype))
    else:
        x = np.ascontiguousarray(sample, value.dtype.numpy)
    tensor = plan.tensor_of(graph.outputs[0])
    assert tensor is not None
    y = evaluate(graph, [x])[graph.outputs[0].name].astype(tensor.dtype.numpy)
    if sample is None:
        return bdn_format.test_record(seed, x.nbytes, y.tobytes())
    if x.nbytes + y.nbytes > LITERAL_LIMIT:
        return _test_vector(plan, None, seed)
    return bdn_format.test_record(x, x.nbytes, y.tobytes())
