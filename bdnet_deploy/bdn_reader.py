"""An exported ``.bdn`` (or the ``.c`` around one) with its model beside it: decoded weights, layers, whole runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy import bdn_format
from bdnet_deploy.bdn_format import RECORD_IO, RECORD_MAP, RECORD_META, Place, align
from bdnet_deploy.bitplanes import unpack, words
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import NUMERICS, Array, Conv2d, DType, Linear, Node, Quant
from bdnet_deploy.host import HostModel
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.plan import Plan
from bdnet_deploy.plan.packings import epilogue_packing, packing
from bdnet_deploy.plan.variants import SETS

_ARRAY = re.compile(r"_data\[\d+\] = \{(.*?)\};", re.DOTALL)
_SHAPE_FIELDS = (
    *("out_height", "out_width", "out_channels", "groups", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("dilation_h", "dilation_w", "pad_top", "pad_left", "pad_value", "weight_planes", "kind", "weights_size"),
)
_WORD = re.compile(r"0x([0-9a-fA-F]{8})u")


def read_bytes(path: Path) -> bytes:
    """The ``.bdn`` bytes in a ``.bdn`` file or in the array of a ``.c`` that ``export --target c`` wrote.

    Raises:
        ModelFileError: the file cannot be read or holds no model.
    """
    if not path.exists():
        raise no_such_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError("the file cannot be read", where=str(path), why=error.strerror) from error
    if path.suffix.lower() != ".c":
        return data
    array = _ARRAY.search(data.decode("utf-8", "replace"))
    if array is None:
        raise ModelFileError("this C file holds no bdnet-deploy model", where=str(path))
    return np.array([int(w, 16) for w in _WORD.findall(array[1])], "<u4").tobytes()


class BdnReader:
    """A model file, opened in the host library.

    Raises:
        ModelFileError: damaged, of another format, or in need of a kernel that the host library lacks.
    """

    def __init__(self, data: bytes, where: str | None = None) -> None:
        self.data = data
        self.file = bdn_format.read(data, where=where)
        self.model = HostModel(data)
        self.numerics = NUMERICS[int(self.file.header["numerics"])]

    @staticmethod
    def open(path: Path) -> BdnReader:
        return BdnReader(read_bytes(path), where=str(path))

    @property
    def io(self) -> IODescription | None:
        """The I/O description in the file."""
        content = self.file.records.get(RECORD_IO)
        return None if content is None else IODescription.from_json(content.decode("utf-8", "replace"))

    @property
    def meta(self) -> dict[str, Any]:
        """What made the file; empty when it does not say."""
        try:
            meta = json.loads(self.file.records.get(RECORD_META, b"{}"))
        except ValueError:
            return {}
        return meta if isinstance(meta, dict) else {}

    @property
    def sets(self) -> tuple[str, ...]:
        """The instruction sets that the file's kernels and packings were chosen for."""
        found = self.meta.get("sets")
        return tuple(name for name in SETS if name in found) if isinstance(found, list) else ()

    def other_steps(self, plan: Plan) -> list[tuple[str, str]]:
        """Layer and reason for every step that is not the one of ``plan``: kernels, shapes, sizes."""
        steps = self.file.steps
        if len(plan.steps) != len(steps):
            return [("", f"the file has {len(steps)} steps, the model {len(plan.steps)}")]
        model = bdn_format.read(write_bdn(plan))
        other = []
        for step, found, expected in zip(plan.steps, steps, model.steps, strict=True):
            wrong = [key for key in _SHAPE_FIELDS if not np.array_equal(found[key], expected[key])]
            wrong += [
                key
                for key in ("kernel", "epilogue")
                if _kernel_name(self.file.kernels, found[key]) != _kernel_name(model.kernels, expected[key])
            ]
            wrong += [key for key in ("in", "out") if _maps(self.file, found[key]) != _maps(model, expected[key])]
            if (step.epilogue is None) != (found["epilogue_at"] == bdn_format.ABSENT):
                wrong.append("epilogue_at")
            if wrong:
                other.append((step.name, f"the step's {', '.join(wrong)} differ from the model's"))
        return other

    def epilogues(self, plan: Plan) -> Iterator[tuple[str, int, list[str]]]:
        """Stored parameters of the steps behind their accumulators, against those of ``plan`` (the same steps).

        Yields:
            Layer, values compared, and what differs: ``"mul[3]"``.
        """
        for step, record in zip(plan.steps, self.file.steps, strict=True):
            other = not isinstance(step.nodes[0].op, Conv2d | Linear)  # limits, tables
            if step.weights is not None and (other or packing(step.kernel)):  # thresholds may stand with weights
                elements = np.ascontiguousarray(step.weights, step.weights.dtype.newbyteorder("<")).reshape(-1)
                start, size = int(record["weights"]), int(record["weights_size"])
                same = self.file.constants[start : start + size] == elements.tobytes()
                yield step.name, elements.size, [] if same else ["weights"]
            if step.epilogue is None:
                continue
            start = int(record["epilogue_at"])
            found = np.frombuffer(self.file.constants, bdn_format.EPILOGUE, 1, start)[0]
            dtype = "<f4" if step.epilogue.dtype is DType.F32 else "<i4"
            compared, different = 0, []
            if records := epilogue_packing(step.epilogue_kernel):
                packed, at = records.pack(step), int(found["mul"])
                compared += len(packed)
                different += [] if self.file.constants[at : at + len(packed)] == packed else ["records"]
            for name in bdn_format.EPILOGUE_ARRAYS if records is None else ():
                values = getattr(step.epilogue, name)
                at = int(found[name])
                if values is None or at == bdn_format.ABSENT:
                    if (values is None) != (at == bdn_format.ABSENT):
                        different.append(name)
                    continue
                expected = np.ascontiguousarray(values, dtype).reshape(-1).view("<u4")
                stored = np.frombuffer(self.file.constants[at : at + 4 * expected.size], "<u4")
                compared += expected.size
                if stored.size != expected.size:
                    different.append(name)
                else:
                    different += [f"{name}[{i}]" for i in np.flatnonzero(stored != expected)]
            for name in ("shift", "residual_shift", "residual_channels", "repeats"):
                compared += 1
                if int(found[name]) != int(getattr(step.epilogue, name)):
                    different.append(name)
            yield step.name, compared, different

    def weights(self, plan: Plan) -> dict[str, Array]:
        """Decoded weights of the layers of ``plan`` (the same model's): output name -> OHWI.

        Raises:
            ValueError: the file has other steps than the plan; see :meth:`other_steps`.
        """
        decoded = {}
        for step, record in zip(plan.steps, self.file.steps, strict=True):
            if step.weights is None or not isinstance(step.nodes[0].op, Conv2d | Linear):
                continue
            start, size = int(record["weights"]), int(record["weights_size"])
            blob = self.file.constants[start : start + size]
            weight = step.nodes[0].inputs[1]
            assert weight.data is not None
            shape = (
                weight.type.shape if len(weight.type.shape) == 4 else (weight.type.shape[0], 1, 1, weight.type.shape[1])
            )
            if not weight.type.dtype.is_packed:
                decoded[step.nodes[0].name] = np.frombuffer(blob, weight.type.dtype.numpy).reshape(shape)
                continue
            if own := packing(step.kernel):
                decoded[step.nodes[0].name] = own.unpack(blob, shape, step)
                continue
            depthwise = (step.kernel or "").startswith("bd_dw_")
            channels = shape[0] if depthwise else shape[3]
            lead = shape[1:3] if depthwise else shape[:3]
            packed = np.frombuffer(blob, "<u4").reshape(*lead, weight.type.dtype.planes, words(channels))
            values = unpack(packed, channels)
            decoded[step.nodes[0].name] = values.transpose(2, 0, 1)[..., None] if depthwise else values
        return decoded

    def _whole(self) -> HostModel:
        """The file's own steps and constants with every map whole, so that a step can run by itself."""
        if not self.file.steps["segment"].any():
            return self.model
        steps, tensors = self.file.steps.copy(), self.file.tensors.copy()
        steps["segment"] = steps["source"] = 0
        tensors["rows_held"] = tensors["height"]
        end = 0
        for tensor in tensors:
            if tensor["place"] == Place.ARENA:
                tensor["offset"] = end
                end = align(end + int(tensor["row_stride"]) * int(tensor["height"]))
        header = self.file.header
        return HostModel(
            bdn_format.write(
                kernels=self.file.kernels,
                tensors=tensors,
                steps=steps,
                constants=self.file.constants,
                tensor_bytes=end,
                scratch_bytes=int(header["scratch_bytes"]),
                inputs=int(header["inputs"]),
                outputs=int(header["outputs"]),
            )
        )

    def layers(
        self, lowered: Lowered, x: Array, values: Mapping[str, Array]
    ) -> Iterator[tuple[str, Node, Array, Array]]:
        """Run every step alone on the reference's values of each sample.

        Args:
            lowered: the same model.
            x: (N, ...) inputs as the graph takes them.
            values: the reference's values of those inputs.

        Yields:
            Layer, the node whose output it is, the host library's values and the reference's (N, ...).
        """
        plan, model = lowered.plan, self._whole()
        index = {tensor: i for i, tensor in enumerate(plan.tensors)}
        for number, step in enumerate(plan.steps):
            found: dict[int, list[Array]] = {}
            for sample in range(len(x)):
                feed = {
                    index[t]: values[t.values[0].name][sample].reshape(t.height, t.width, t.channels)
                    for t in step.inputs
                }
                for which, content in model.run_step_isolated(number, feed).items():
                    found.setdefault(which, []).append(content)
            for tensor in step.outputs:
                value = tensor.values[0]
                assert value.node is not None
                expected = values[value.name]
                yield step.name, value.node, np.stack(found[index[tensor]]).reshape(expected.shape), expected

    def values(self, lowered: Lowered, x: Array) -> dict[str, Array]:
        """Run the steps one behind the other, each on what the library itself made; every map between steps.

        Args:
            lowered: the same model.
            x: (N, ...) inputs as the graph takes them.

        Returns:
            Name of the graph's value -> (N, ...), bits and trits as int8.
        """
        plan, model = lowered.plan, self._whole()
        index = {tensor: i for i, tensor in enumerate(plan.tensors)}
        found: dict[str, list[Array]] = {}
        for sample in x:
            maps = {t: sample.reshape(t.height, t.width, t.channels) for t in plan.tensors if t.place == "input"}
            for number, step in enumerate(plan.steps):
                made = model.run_step_isolated(number, {index[t]: maps[t] for t in step.inputs})
                for tensor in step.outputs:
                    maps[tensor] = made[index[tensor]]
                    value = tensor.values[0]
                    found.setdefault(value.name, []).append(maps[tensor].reshape(value.type.shape))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def raw(self, x: Array) -> Array:
        """The first output (N, ...) of inputs as the file takes them."""
        return self.model.run(x)[0]

    def predict(self, x: Array) -> Array:
        """Logits (N, ...) as float64 for float samples (N, H, W, C).

        Raises:
            ModelFileError: the file does not say what its integers mean.
        """
        source, dtype = self._quantization("inputs")
        encoded = x.astype(np.float32) if source is None else source.quantize(x, dtype)
        result, _ = self._quantization("outputs")
        raw = self.raw(encoded)
        return raw.astype(np.float64) if result is None else result.dequantize(raw)

    def _quantization(self, kind: str) -> tuple[Quant | None, DType]:
        try:
            record = json.loads(self.file.records[RECORD_MAP])[kind][0]
            quant = Quant.of(record["scale"], record["zero_point"]) if "scale" in record else None
            return quant, DType(record["dtype"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelFileError("the file does not say what its inputs and outputs mean", why=str(error)) from error

    def self_test(self) -> bool:
        """Whether the recorded test vector passes; True when there is none."""
        return self.model.self_test()


def _kernel_name(kernels: list[str], index: int) -> str | None:
    return None if index == bdn_format.NONE else kernels[index]


def _maps(file: bdn_format.BdnFile, indices: Array) -> list[tuple[int, ...]]:
    """Shape and type of the tensors that a step reads or writes."""
    tensors = [file.tensors[i] for i in indices if i != bdn_format.NONE]
    return [tuple(int(t[key]) for key in ("height", "width", "channels", "dtype")) for t in tensors]
