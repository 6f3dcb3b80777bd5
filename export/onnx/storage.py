"""Initializers of a file: inside it, or beside it where the file would become too large for protobuf."""

from __future__ import annotations

from typing import Any

from bdnet_deploy.graph import Array

#: A protobuf message ends at 2 GiB; some room is left for the nodes.
LIMIT = (1 << 31) - (64 << 20)
#: Tensors below this stay in the file.
_SMALL = 1024
_ALIGNMENT = 64


def initializers(
    onnx: Any, constants: list[tuple[str, Array]], *, limit: int, location: str
) -> tuple[list[Any], dict[str, bytes]]:
    """The tensors, and the files beside the model: name -> content; none where the tensors are below ``limit`` bytes.

    Args:
        onnx: the package.
        constants: (name, array), in order.
        limit: bytes that all tensors together may take inside the file.
        location: name of the file beside it.
    """
    if sum(array.nbytes for _, array in constants) <= limit:
        return [onnx.numpy_helper.from_array(array, name) for name, array in constants], {}
    tensors, content = [], bytearray()
    for name, array in constants:
        if array.nbytes < _SMALL:
            tensors.append(onnx.numpy_helper.from_array(array, name))
            continue
        content += bytes(-len(content) % _ALIGNMENT)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        tensor = onnx.TensorProto(name=name, dims=array.shape)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        where = {"location": location, "offset": str(len(content)), "length": str(array.nbytes)}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=value)
        content += little.tobytes()
        tensors.append(tensor)
    return tensors, {location: bytes(content)} if content else {}
