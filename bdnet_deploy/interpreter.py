"""Runs a ``.tflite`` of Larq Compute Engine through the calls of ``tf.lite.Interpreter``, with our kernels.

A program that uses ``tf.lite.Interpreter`` changes its import:

>>> from bdnet_deploy import Interpreter
>>> interpreter = Interpreter(model_path="quicknet.tflite")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy.errors import UnsupportedError, UsageError, unknown_name
from bdnet_deploy.graph import Array
from bdnet_deploy.importers.tflite.reader import Port, read


class Interpreter:
    """One model, in float arithmetic; 8-bit files are rounded where they say so. Not for several threads at once.

    Inputs and outputs have the indices, shapes and dtypes of the file. Other tensors do not exist here: layers are fused.

    Args:
        model_path: a ``.tflite`` file.
        model_content: its bytes, instead.
        num_threads: that share each map's rows; results are the same for any number.

    Raises:
        ModelFileError: no such file, or a damaged one.
        UnsupportedError: an operator that cannot be carried over.
        UsageError: neither a path nor content, or both; so many threads cannot be had.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        model_content: bytes | None = None,
        num_threads: int | None = None,
    ) -> None:
        from bdnet_deploy.export.bdn import write_bdn
        from bdnet_deploy.host import HostModel
        from bdnet_deploy.lowering import lower

        if (model_path is None) == (model_content is None):
            raise UsageError("name one model", fix="Interpreter(model_path=...) or Interpreter(model_content=...)")
        source = bytes(model_content) if model_content is not None else Path(model_path or "")
        imported = read(source, rounding=True)
        self._inputs, self._outputs = imported.inputs, imported.outputs
        self._signatures = {s.key: s for s in imported.signatures}
        self._model = HostModel(write_bdn(lower(imported.graph, "float").plan), threads=num_threads or 1)
        self._values = {p.index: np.zeros(p.shape, p.dtype) for p in (*self._inputs, *self._outputs)}

    # -- the calls of tf.lite.Interpreter ---------------------------------------------------------------------------------

    def allocate_tensors(self) -> None:
        """Nothing: memory is laid out when the model is loaded."""

    def get_input_details(self) -> list[dict[str, Any]]:
        """Per input: name, index, shape, shape_signature, dtype, quantization and quantization_parameters."""
        return [_details(p) for p in self._inputs]

    def get_output_details(self) -> list[dict[str, Any]]:
        """As :meth:`get_input_details`, of the outputs."""
        return [_details(p) for p in self._outputs]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """Of the inputs and outputs."""
        return self.get_input_details() + self.get_output_details()

    def resize_tensor_input(self, input_index: int, tensor_size: Any, strict: bool = False) -> None:
        """Accepts the shape that the input has.

        Raises:
            UnsupportedError: another one.
        """
        port = self._port(input_index, self._inputs)
        shape = tuple(int(size) for size in tensor_size)
        if shape != port.shape:
            raise UnsupportedError(
                f"input {input_index} cannot be resized from {port.shape} to {shape}: shapes are fixed when a model is planned",
                fix="convert the model for that shape; for several samples call invoke for each",
            )

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        """Copy ``value`` into an input.

        Raises:
            UsageError: it is no input, or the shape or dtype is another.
        """
        port = self._port(tensor_index, self._inputs)
        array = np.asarray(value)
        if array.dtype != port.dtype:
            raise UsageError(f"input {tensor_index} takes {port.dtype}, not {array.dtype}", where=port.name)
        if array.shape != port.shape:
            raise UsageError(f"input {tensor_index} has the shape {port.shape}, not {array.shape}", where=port.name)
        self._values[tensor_index][...] = array

    def invoke(self) -> None:
        """One inference: outputs from inputs."""
        feeds = [
            p.decode(self._values[p.index]).reshape(1, *host.shape)
            for p, host in zip(self._inputs, self._model.inputs, strict=True)
        ]
        for port, result in zip(self._outputs, self._model.run(feeds), strict=True):
            self._values[port.index][...] = port.encode(result).reshape(port.shape)

    def get_tensor(self, tensor_index: int, subgraph_index: int = 0) -> Array:
        """A copy of an input or output.

        Raises:
            UsageError: another tensor.
        """
        return self.tensor(tensor_index)().copy()

    def tensor(self, tensor_index: int) -> Callable[[], Array]:
        """A function that returns the memory of an input or output, to be read and, of an input, written.

        Raises:
            UsageError: another tensor.
        """
        self._port(tensor_index, [*self._inputs, *self._outputs])
        return lambda: self._values[tensor_index]

    def get_signature_list(self) -> dict[str, dict[str, list[str]]]:
        """Key of each signature -> names of its inputs and outputs."""
        return {key: {"inputs": sorted(s.inputs), "outputs": sorted(s.outputs)} for key, s in self._signatures.items()}

    def get_signature_runner(self, signature_key: str | None = None) -> Callable[..., dict[str, Array]]:
        """A function from named inputs to named outputs.

        Args:
            signature_key: may be left out where there is one signature.

        Raises:
            UsageError: there is no such signature, or the file has none.
        """
        if signature_key is None and len(self._signatures) == 1:
            signature_key = next(iter(self._signatures))
        if signature_key not in self._signatures:
            if not self._signatures or signature_key is None:
                raise UsageError(
                    f"the file has {len(self._signatures)} signatures, and none was named",
                    fix="use set_tensor, invoke and get_tensor",
                )
            raise unknown_name("signature", signature_key, self._signatures)
        signature = self._signatures[signature_key]

        def run(**inputs: Any) -> dict[str, Array]:
            if set(inputs) != set(signature.inputs):
                raise UsageError(
                    f"signature '{signature_key}' takes {', '.join(sorted(signature.inputs))}",
                    why=f"{', '.join(sorted(inputs)) or 'nothing'} was given",
                )
            for name, value in inputs.items():
                self.set_tensor(signature.inputs[name], value)
            self.invoke()
            return {name: self.get_tensor(index) for name, index in signature.outputs.items()}

        return run

    def reset_all_variables(self) -> None:
        """Nothing: the models have no state."""

    def _port(self, index: int, ports: list[Port]) -> Port:
        found = next((p for p in ports if p.index == index), None)
        if found is None:
            raise UsageError(
                f"tensor {index} is not among {sorted({p.index for p in ports})}",
                why="layers are fused here, so that only inputs and outputs exist",
                fix="take the index from get_input_details() or get_output_details()",
            )
        return found


def _details(port: Port) -> dict[str, Any]:
    scale = port.scale
    return {
        "name": port.name,
        "index": port.index,
        "shape": np.array(port.shape, np.int32),
        "shape_signature": np.array(port.signature, np.int32),
        "dtype": port.dtype.type,
        "quantization": (scale.scale, scale.zero_point) if scale else (0.0, 0),
        "quantization_parameters": {
            "scales": np.array([scale.scale] if scale else [], np.float32),
            "zero_points": np.array([scale.zero_point] if scale else [], np.int32),
            "quantized_dimension": 0,
        },
        "sparsity_parameters": {},
    }
