"""From files and code of all kinds to a :class:`~bdnet_deploy.model.Model`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdnet_deploy.errors import BdnetError, ModelFileError, UsageError
from bdnet_deploy.files import no_such_file
from bdnet_deploy.formats import TARGETS
from bdnet_deploy.graph import Graph
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.model import Model, PathLike

if TYPE_CHECKING:
    from torch import nn

    from bdnet_deploy.importers.torch.interpreter import Imported

#: Suffixes of the files that hold a network and its weights and go through PyTorch's importer.
PROGRAMS = (".onnx", ".pt2")
#: Suffixes of Keras models, which are converted before they are imported.
KERAS = (".h5", ".hdf5", ".keras")
LARQ = (".tflite", *KERAS)


def load(
    path: PathLike | None = None,
    *,
    arch: str | None = None,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
    weights: PathLike | None = None,
    inputs: Sequence[Sequence[int]] | None = None,
    preprocess: Mapping[str, Any] | IODescription | None = None,
    labels: Sequence[str] | None = None,
    strict: bool = False,
) -> Model:
    """Import a model of PyTorch, ONNX or Larq.

    Args:
        path: a checkpoint: ours (``bdnet_deploy.save``), or any state dict with ``arch``. Or a file that holds its network
            and needs none of ``arch`` to ``weights``: ONNX or QONNX (``.onnx``), ``torch.export.save`` (``.pt2``), Larq
            (``.tflite``), Keras (``.h5``, ``.keras``) with the packages that convert it. Code in a file never runs.
        arch: an architecture of :mod:`bdnet_deploy.models`.
        model: ``"package.module:factory"``, the user's own code, instead of ``path``.
        settings: arguments of ``arch`` or ``model``.
        weights: a state dict for ``model``.
        inputs: input shapes as torch sees them, batch first; by default what the file says.
        preprocess, labels: the I/O description, where the file has none.
        strict: see :meth:`Model.check_binary`.

    Raises:
        ModelFileError: the file is missing, damaged, or of another kind.
        UnsupportedError: a layer that cannot be carried over; it is named.
    """
    suffix = "" if path is None else Path(path).suffix.lower()
    for file in (path, weights):
        if file is not None:
            _check_source(Path(file), whole=file is path and suffix in (*PROGRAMS, *LARQ))
    if path is not None and suffix in (*PROGRAMS, *LARQ):
        if arch is not None or model is not None or settings or weights is not None:
            raise UsageError(
                f"a {suffix} file has its own network and weights",
                where=str(path),
                fix="leave out --arch, --model, --set and --weights",
            )
        read = _read_program if suffix in PROGRAMS else _read_larq
        try:
            loaded = read(Path(path), inputs)
        except BdnetError as error:
            if str(path) not in (error.where or ""):
                error.where = f"{path}: {error.where}" if error.where else str(path)
            raise
    else:
        loaded = _from_torch(path, arch, model, settings, weights, inputs)
    loaded.io = _described(loaded.io, loaded.graph, preprocess, labels)
    if strict:
        loaded.check_binary()
    return loaded


def _check_source(path: Path, *, whole: bool) -> None:
    """Refuse what is not there, and exported files that are not read back; ``whole``: it is such a model."""
    if not path.exists():
        raise no_such_file(path)
    if path.suffix.lower() in TARGETS.values() and path.is_file() and not whole:
        raise ModelFileError(
            f"this is an exported {path.suffix} file, not a PyTorch model",
            where=str(path),
            fix="give the model.pt that it was exported from; to compare the two: "
            f"bdnet-deploy verify model.pt {path.name}",
        )


def _described(
    io: IODescription | None,
    graph: Graph,
    preprocess: Mapping[str, Any] | IODescription | None,
    labels: Sequence[str] | None,
) -> IODescription | None:
    """The I/O description that the caller gives, or else the file's."""
    if preprocess is None and labels is None:
        return io
    if isinstance(preprocess, IODescription):
        return preprocess
    return IODescription.from_settings(preprocess, labels, graph.inputs[0].type.shape[1:])


# -- the kinds ----------------------------------------------------------------------------------------------------------


def _from_torch(
    path: PathLike | None,
    arch: str | None,
    model: str | None,
    settings: Mapping[str, Any] | None,
    weights: PathLike | None,
    inputs: Sequence[Sequence[int]] | None,
) -> Model:
    """A checkpoint, or the user's code."""
    from bdnet_deploy.checkpoint import load_module
    from bdnet_deploy.importers.torch import import_module

    module = load_module(path, arch=arch, model=model, set_=settings, weights=weights)
    io = getattr(module, "bdnet_io", None)
    graph = import_module(module, _input_shape(module, io, inputs), name=_model_name(path, arch, model, weights))
    file = path if path is not None else weights
    source = None if file is None else Path(file)
    digest = None if source is None else hashlib.sha256(source.read_bytes()).hexdigest()
    return Model(graph.name, graph, io, source, digest, _module=module)


def _read_program(path: Path, inputs: Sequence[Sequence[int]] | None) -> Model:
    """An ``.onnx`` or ``.pt2`` file, by way of a module."""
    if path.is_dir():
        raise ModelFileError("this is a folder, not a model file", where=str(path))
    shape = None if not inputs else _checked_shape(inputs)
    program: Imported
    if path.suffix.lower() == ".onnx":
        from bdnet_deploy.importers import onnx

        own, notes = onnx.read_own(path)
        if own is not None:
            return _own_graph(path, *own, given=shape)
        program = onnx.read(path, shape)
        program.notes[:0] = notes
    else:
        from bdnet_deploy.importers import pt2

        program = pt2.read(path, shape)
    from bdnet_deploy.importers.torch import import_module

    graph = import_module(program.module, program.input_shape, name=path.stem)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(path.stem, graph, program.io, path, digest, program.notes, _module=program.module)


def _own_graph(path: Path, graph: Graph, io: IODescription | None, *, given: Sequence[int] | None) -> Model:
    """What an exported file of ours carries."""
    if given is not None:
        raise UsageError("a file of ours says the shape of its input", where=str(path), fix="leave out --input")
    from bdnet_deploy.passes import to_real

    real = to_real(graph)
    real.name = path.stem
    notes = ["the file is one of ours: the graph is the one that was exported"]
    return Model(path.stem, real, io, path, hashlib.sha256(path.read_bytes()).hexdigest(), notes)


def _read_larq(path: Path, inputs: Sequence[Sequence[int]] | None) -> Model:
    """A ``.tflite``, or a Keras model by way of one."""
    from bdnet_deploy.importers import keras
    from bdnet_deploy.importers.artifact import load_bytes
    from bdnet_deploy.importers.tflite.reader import read

    if inputs:
        raise UsageError(f"a {path.suffix} file says the shape of its input", fix="leave out --input")
    content = load_bytes(path)
    data = content if path.suffix.lower() == ".tflite" else keras.convert(path)
    imported = read(data)
    imported.graph.name = path.stem
    digest = hashlib.sha256(content).hexdigest()
    return Model(path.stem, imported.graph, imported.io, path, digest, imported.notes, _tflite=data)


def _model_name(path: PathLike | None, arch: str | None, model: str | None, weights: PathLike | None) -> str:
    if path is not None or weights is not None:
        return Path(path or weights or "").stem
    return arch or (model or "model").rpartition(":")[2]


def _input_shape(
    module: nn.Module, io: IODescription | None, inputs: Sequence[Sequence[int]] | None
) -> tuple[int, ...]:
    """The first input's shape, batch first, channels before space."""
    if inputs:
        return _checked_shape(inputs)
    if io is not None and io.inputs and io.inputs[0].shape:
        *space, channels = io.inputs[0].shape
        return (1, channels, *space)
    if hasattr(module, "bdnet_arch"):  # ours know their (H, W, C)
        height, width, channels = module.input_shape
        return (1, channels, height, width)
    raise UsageError("the model does not say the shape of its input", fix="add --input 1x3x224x224 (batch first)")


def _checked_shape(inputs: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """What the user gave as shapes of the inputs: one, with a batch of 1."""
    if len(inputs) > 1:
        raise BdnetError("models with several inputs cannot be imported yet", where="--input")
    shape = tuple(inputs[0])
    if len(shape) < 2:
        raise UsageError(f"a shape has a batch and channels at least, not {'x'.join(map(str, shape))}",
                         where="--input", fix="batch first, as PyTorch sees it: --input 1x3x224x224")  # fmt: skip
    if shape[0] != 1 and len(shape) in (2, 3):
        raise UsageError(f"{'x'.join(map(str, shape))} has no batch", where="--input",
                         fix=f"--input {'x'.join(map(str, (1,) * (4 - len(shape)) + shape))}")  # fmt: skip
    if shape[0] != 1:
        raise UsageError(f"the batch of {'x'.join(map(str, shape))} is not 1", where="--input",
                         fix=f"--input {'x'.join(map(str, (1, *shape[1:])))}")  # fmt: skip
    return shape
