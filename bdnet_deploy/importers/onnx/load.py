"""From an ONNX file to a module with the shape of its input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bdnet_deploy.errors import ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.export.foreign import METADATA_KEY
from bdnet_deploy.importers.artifact import load_description, load_io
from bdnet_deploy.importers.onnx.file import File, open_file
from bdnet_deploy.importers.onnx.interpreter import OnnxModule
from bdnet_deploy.importers.onnx.tensors import is_float
from bdnet_deploy.importers.program import fixed_shape, text
from bdnet_deploy.importers.torch.interpreter import Imported


def read_file(path: Path, input_shape: Sequence[int] | None = None) -> Imported:
    """See :func:`bdnet_deploy.importers.onnx.read`."""
    try:
        file = open_file(path)
        name = _only_input(file)
        shape, notes = _input_shape(file, name, input_shape)
        module = OnnxModule(file, name)
    except (ModelFileError, UnsupportedError) as error:
        error.where = f"{path}: {error.where}" if error.where and error.where != str(path) else str(path)
        raise
    if module.channels_last and len(shape) == 4:
        shape = (shape[0], shape[3], shape[1], shape[2])
    content = file.metadata.get(METADATA_KEY)
    io = None if content is None else load_io(load_description(content.encode("utf-8"), "ONNX"))
    return Imported(module, shape, notes, io)


def _only_input(file: File) -> str:
    if len(file.inputs) > 1:
        names = ", ".join(text(name) for name in list(file.inputs)[:6])
        raise UnsupportedError(
            "models with several inputs cannot be imported yet",
            why=f"the file has {len(file.inputs)} inputs: {names}",
            fix="export with constants in place of all but one of them",
        )
    if not file.inputs:
        raise ModelFileError("the model has no input", fix="export it with an example input")
    name, (kind, _) = next(iter(file.inputs.items()))
    if not is_float(kind):
        raise UnsupportedError(
            f"the input '{text(name)}' is not of a float type",
            why="activations are real numbers until the first quantizer",
            fix="export the model with a float input; the scaling of raw bytes belongs into the I/O description",
        )
    return name


def _input_shape(file: File, name: str, wanted: Sequence[int] | None) -> tuple[tuple[int, ...], list[str]]:
    _, dims = file.inputs[name]
    if dims is None:
        if wanted is None:
            raise UsageError(
                f"the file does not say the shape of its input '{text(name)}'",
                fix="add --input with the shape, batch first: --input 1x3x224x224",
            )
        return tuple(wanted), []
    return fixed_shape(text(name), dims, file.names[name], wanted)
