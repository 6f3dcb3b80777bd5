"""An exported ``.bdn`` (or the ``.c`` around one) with its model beside it: decoded weights, layers, whole runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy import bdn_format
from bdnet_deploy.bdn_format import RECORD_IO, RECORD_MAP, RECORD_META
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.graph import NUMERICS, Array, DType, Node, Quant
from bdnet_deploy.host import HostModel
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.plan import Plan
from bdnet_deploy.plan.packing import planes, unpack, words

_ARRAY = re.compile(r"_data\[\d+\] = \{(.*?)\};", re.DOTALL)
_WORD = re.compile(r"0x([0-9a-fA-F]{8})u")


def read_bytes(path: Path) -> bytes:
    """The ``.bdn`` bytes in a ``.bdn`` file or in the array of a ``.c`` that ``export --target c`` wrote.

    Raises:
        ModelFileError: the file cannot be read or holds no model.
    """
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

    def weights(self, plan: Plan) -> dict[str, Array]:
        """Decoded weights of the layers of ``plan`` (the same model's): output name -> OHWI.

        Raises:
            ModelFileError: the file has other steps than the plan.
        """
        if len(plan.steps) != len(self.file.steps):
            raise ModelFileError(
                f"the file has {len(self.file.steps)} steps, this model {len(plan.steps)}: it is another model"
            )
        decoded = {}
        for step, record in zip(plan.steps, self.file.steps, strict=True):
            if step.weights is None:
                continue
            start, size = int(record["weights"]), int(record["weights_size"])
            blob = self.file.constants[start : start + size]
            weight = step.nodes[0].inputs[1]
            assert weight.data is not None
            shape = (
                weight.type.shape if len(weight.type.shape) == 4 else (weight.type.shape[0], 1, 1, weight.type.shape[1])
            )
            if size != step.weights.nbytes:
                raise ModelFileError(f"the weights of layer '{step.name}' have another size: it is another model")
            if not weight.type.dtype.is_packed:
                decoded[step.nodes[0].name] = np.frombuffer(blob, weight.type.dtype.numpy).reshape(shape)
                continue
            depthwise = (step.kernel or "").startswith("bd_dw_")
            channels = shape[0] if depthwise else shape[3]
            lead = shape[1:3] if depthwise else shape[:3]
            packed = np.frombuffer(blob, "<u4").reshape(*lead, planes(weight.type.dtype), words(channels))
            values = unpack(packed, channels, weight.type.dtype)
            decoded[step.nodes[0].name] = values.transpose(2, 0, 1)[..., None] if depthwise else values
        return decoded

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
        plan = lowered.plan
        index = {tensor: i for i, tensor in enumerate(plan.tensors)}
        for number, step in enumerate(plan.steps):
            found: dict[int, list[Array]] = {}
            for sample in range(len(x)):
                feed = {
                    index[t]: values[t.values[0].name][sample].reshape(t.height, t.width, t.channels)
                    for t in step.inputs
                }
                for which, content in self.model.run_step_isolated(number, feed).items():
                    found.setdefault(which, []).append(content)
            for tensor in step.outputs:
                value = tensor.values[0]
                assert value.node is not None
                expected = values[value.name]
                yield step.name, value.node, np.stack(found[index[tensor]]).reshape(expected.shape), expected

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
