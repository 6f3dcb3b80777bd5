"""The Python API: a model, and what can be done with it. The command line prints what these calls return."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bdnet_deploy.errors import BdnetError, ModelFileError, UsageError, unknown_name
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array, Graph
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.samples import ImageSamples, Samples, load_samples

if TYPE_CHECKING:
    from torch import nn

    from bdnet_deploy.artifact import Artifact
    from bdnet_deploy.report import Report

PathLike = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]
#: Export targets -> file suffix.
TARGETS = {"bdn": ".bdn", "c": ".c", "onnx": ".onnx", "tflite": ".tflite"}
#: Suffixes of Keras models, which are converted before they are imported.
KERAS = (".h5", ".hdf5", ".keras")


@dataclass(eq=False)
class Model:
    """An imported model.

    Attributes:
        name: used for files and C symbols.
        graph: as imported, parameters in double.
        io: what inputs and outputs mean, or None.
        source: the file it came from, if any.
        source_sha256: of that file.
        notes: what differs from the file, in sentences.
    """

    name: str
    graph: Graph
    io: IODescription | None = None
    source: Path | None = None
    source_sha256: str | None = None
    notes: list[str] = field(default_factory=list)
    _module: nn.Module | None = None
    #: The ``.tflite`` that the graph was made of.
    _tflite: bytes | None = None
    _lowered: dict[tuple[str, str], Lowered] = field(default_factory=dict)

    # -- parts --------------------------------------------------------------------------------------------------------

    def module(self) -> nn.Module:
        """The trainable torch module.

        Raises:
            UsageError: the model did not come from PyTorch.
        """
        if self._module is None:
            raise UsageError(f"model '{self.name}' has no torch module")
        return self._module

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the first input."""
        return self.graph.inputs[0].type.shape[1:]

    def samples(self, data: PathLike | Array | Samples, *, limit: int | None = None) -> Samples:
        """Samples from an ``.npz`` file, an image, a folder of images or of class folders, or from an array.

        Args:
            data: a path (:func:`bdnet_deploy.samples.load_samples`), or raw samples in memory.
            limit: use at most so many: the first ones, or an even part of a folder.
        """
        _check_limit(limit)
        if isinstance(data, Samples):
            return data.limited(limit)
        if isinstance(data, str | os.PathLike):
            samples = load_samples(Path(data), self.io, self.sample_shape, limit=limit)
            classes = self.graph.outputs[0].type.shape[-1]
            if isinstance(samples, ImageSamples) and len(samples.classes) > classes:
                raise UsageError(
                    f"there are {len(samples.classes)} class folders, the model has {classes} classes", where=str(data)
                )
            return samples
        x = self.io.preprocess(data) if self.io is not None else data
        return Samples(x[:limit], None)

    def lowered(
        self,
        numerics: str = "float",
        calibrate: PathLike | Array | Samples | None = None,
        *,
        progress: Progress | None = None,
    ) -> Lowered:
        """The graph in ``numerics`` and its plan; see :func:`bdnet_deploy.lowering.lower`.

        ``calibrate``: samples that set the ranges of fixed point; None: random inputs, marked "timing only".
        """
        samples = None if calibrate is None or numerics == "float" else self.samples(calibrate)
        digest = samples.key if samples is not None else ""
        if (numerics, digest) not in self._lowered:
            step = (lambda done, total: progress("calibrating", done, total)) if progress else None
            self._lowered[numerics, digest] = lower(self.graph, numerics, io=self.io, samples=samples, progress=step)
        return self._lowered[numerics, digest]

    # -- questions and products ---------------------------------------------------------------------------------------

    def calibration(
        self,
        calibrate: PathLike | Array | Samples,
        numerics: str = "fixed16",
        *,
        limit: int = 100,
        progress: Progress | None = None,
    ) -> Report:
        """What calibration chose and what fixed point does to the samples: ranges, saturation, signs, predictions.

        Args:
            calibrate: the samples; all of them set the ranges.
            numerics: ``"fixed16"`` or ``"fixed8"``.
            limit: the real and the quantized network are compared on at most so many of the samples, an even part.

        Raises:
            UsageError: other numerics, or samples that do not fit.
        """
        from bdnet_deploy.analysis.calibration import report_calibration

        _check_limit(limit)
        return report_calibration(self, calibrate, numerics, limit=limit, progress=progress)

    def check_binary(self, allow_real: Iterable[str] = ()) -> None:
        """Refuse the model if a convolution or linear layer is real, but for the first one and classifiers.

        First is a layer that no other precedes, a classifier one that no other follows.

        Args:
            allow_real: layers that may be real too: names, or patterns with ``*`` and ``?``.

        Raises:
            UnsupportedError: names every other real layer with its reason.
            UsageError: no layer is so called.
        """
        from bdnet_deploy.analysis.recognised import check_binary

        check_binary(self.graph, allow_real)

    def inspect(
        self,
        *,
        numerics: str | None = None,
        ram: int | None = None,
        cache: int | None = None,
        push_rows: bool = False,
    ) -> Report:
        """Layers, shapes, MACs, weights, what each layer was recognised as, and why it is not binary.

        Args:
            numerics: also how our runtime would use memory with these numerics. Needs no samples: the ranges of fixed
                point do not change sizes.
            ram, cache, push_rows: of that plan, as for :meth:`export`.

        Raises:
            DoesNotFitError: no plan fits into ``ram``.
            UsageError: a setting of the plan, but no numerics.
            UnsupportedError: numerics were given, and no kernel runs a layer.
        """
        from bdnet_deploy.analysis.inspect import inspect_graph
        from bdnet_deploy.analysis.memory import mixes_table, timeline_table

        report = inspect_graph(self.graph, io=self.io)
        report.tables[0].notes += self.notes
        if numerics is None:
            if ram is not None or cache is not None or push_rows:
                raise UsageError(
                    "memory depends on the numerics",
                    fix="add --numerics float, --numerics fixed16 or --numerics fixed8",
                )
            return report
        plan = self.lowered(numerics).replanned(ram=ram, cache=cache, push_rows=push_rows).plan
        report.facts |= {"numerics": numerics, "execution": plan.execution}
        report.tables += [mixes_table(plan), timeline_table(plan)]
        return report

    def export(
        self,
        target: str,
        path: PathLike | None = None,
        *,
        numerics: str | None = None,
        calibrate: PathLike | Array | Samples | None = None,
        ram: int | None = None,
        cache: int | None = None,
        push_rows: bool = False,
        model_version: int = 0,
        for_firmware: PathLike | None = None,
        keep_kernels: PathLike | Iterable[str] | None = None,
        reserve_arena: int = 0,
        reserve_model: int = 0,
        progress: Progress | None = None,
    ) -> Artifact:
        """Write the model for a runtime.

        Args:
            target: ``"tflite"`` (Larq-compatible, stock runtimes), ``"onnx"``, ``"bdn"`` or ``"c"`` (our runtime).
            path: the file; by default ``<name>.<suffix>`` in the current folder. For ``c`` a header and the firmware's
                manifest are written beside it. An older file is replaced, whole or not at all.
            numerics: of ``bdn`` and ``c``: ``"float"`` (default of bdn), ``"fixed16"`` (default of c), ``"fixed8"``.
            calibrate: samples, necessary for fixed numerics.
            ram: bytes that the feature maps may take (``bdn`` and ``c``): the plan streams where it must.
            cache: bytes that what runs together should read and write at most, without weights (``bdn`` and ``c``): the
                plan streams where that helps; never an error.
            push_rows: the input comes row by row (``bdn`` and ``c``), so that no buffer holds it.
            model_version: your own number, stored in the file (``bdn`` and ``c``); ``bd_inspect`` reports it.
            for_firmware: a manifest (``bdn``): the file must run on that firmware, whose arena is the limit that ``ram``
                is by default, and whose model's numerics are the default.
            keep_kernels: what the table has besides the model's kernels (``c``); see
                :func:`~bdnet_deploy.kept_kernels.kept_kernels`.
            reserve_arena, reserve_model: bytes for later models (``c``), at least what this one needs.

        Raises:
            DoesNotFitError: no plan fits into ``ram``, or the firmware cannot run the model: every lack is named.
            UsageError: unknown target or numerics, or fixed numerics without samples.
            UnsupportedError: the target cannot express a layer.
        """
        from bdnet_deploy.artifact import export_model

        if target not in TARGETS:
            raise unknown_name("target", target, TARGETS)
        return export_model(
            self,
            target,
            path,
            numerics=numerics,
            calibrate=calibrate,
            ram=ram,
            cache=cache,
            push_rows=push_rows,
            model_version=model_version,
            for_firmware=for_firmware,
            keep_kernels=keep_kernels,
            reserve_arena=reserve_arena,
            reserve_model=reserve_model,
            progress=progress,
        )

    def verify(
        self,
        artifact: PathLike,
        *,
        inputs: PathLike | Array | Samples | None = None,
        calibrate: PathLike | Array | Samples | None = None,
        limit: int = 20,
    ) -> Report:
        """Compare an exported file with this model: decoded parameters, then layer by layer, then end to end.

        Args:
            artifact: a ``.tflite``, ``.onnx``, ``.bdn`` or ``.c`` file.
            inputs: samples to compare on; None: random ones.
            calibrate: the samples that a fixed-point file was exported with; every byte is compared then, else its
                weights and how far its predictions agree with float.
            limit: use at most so many samples.

        Raises:
            MismatchError: they differ; ``error.report`` is the report, and the first divergent layer is named.
        """
        from bdnet_deploy.analysis.verify import verify

        return verify(self, Path(artifact), inputs=inputs, calibrate=calibrate, limit=limit)

    def verify_import(self, *, inputs: PathLike | Array | Samples | None = None, limit: int = 20) -> Report:
        """Compare the graph with the PyTorch module that it was imported from, value by value, then end to end.

        Args:
            inputs: samples to compare on; None: random ones.
            limit: use at most so many samples.

        Raises:
            MismatchError: they differ; ``error.report`` is the report, and the first divergent layer is named.
            UsageError: the model did not come from PyTorch.
        """
        from bdnet_deploy.analysis.verify import verify_import

        return verify_import(self, inputs=inputs, limit=limit)

    def evaluate(
        self,
        data: PathLike | Samples,
        backends: Sequence[str] | None = None,
        *,
        calibrate: PathLike | Array | Samples | None = None,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Top-1 accuracy of several back ends side by side, and how often they agree with the first.

        ``backends``: by default ``pytorch``, or ``reference`` for a model that is not from there, and ``host:float``.
        """
        from bdnet_deploy.analysis.evaluate import evaluate

        backends = backends or ("reference" if self._module is None else "pytorch", "host:float")
        return evaluate(self, data, backends, calibrate=calibrate, limit=limit, progress=progress)

    def profile(
        self,
        core: str,
        *,
        numerics: str | None = None,
        calibrate: PathLike | Array | Samples | None = None,
        ram: int | None = None,
        cache: int | None = None,
        push_rows: bool = False,
        slices: bool = False,
        timeout_s: float = 300.0,
    ) -> Report:
        """Counted instructions per layer, estimated time, and memory on an emulated core or board.

        ``ram``, ``cache``, ``push_rows``: as for :meth:`export`; by default ``ram`` is what the board has. ``slices``:
        also the number of ``bd_advance`` calls that an inference takes, and the longest of them. ``timeout_s``: real
        seconds that the emulation may take.
        """
        from bdnet_deploy.analysis.profile import profile

        return profile(
            self,
            core,
            numerics=numerics,
            calibrate=calibrate,
            ram=ram,
            cache=cache,
            push_rows=push_rows,
            slices=slices,
            timeout_s=timeout_s,
        )

    def run(
        self,
        data: PathLike | Samples,
        *,
        numerics: str = "float",
        calibrate: PathLike | Array | Samples | None = None,
        limit: int | None = None,
    ) -> Array:
        """Logits (N, classes) of the host library; fixed numerics need ``calibrate``."""
        from bdnet_deploy.backends import make_backend

        backend = make_backend(self, f"host:{numerics}", calibrate)
        return np.concatenate([backend.predict(x) for x in self.samples(data, limit=limit).parts()])


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
    """Import a model of PyTorch, or of Larq.

    Args:
        path: a checkpoint: ours (``bdnet_deploy.save``), or any state dict with ``arch``. Code in it never runs. Or a
            ``.tflite`` file, or a Keras model (``.h5``, ``.keras``) with the packages that convert it; these say all that
            ``arch`` to ``inputs`` could.
        arch: an architecture of :mod:`bdnet_deploy.models`.
        model: ``"package.module:factory"``, the user's own code, instead of ``path``.
        settings: arguments of ``arch`` or ``model``.
        weights: a state dict for ``model``.
        inputs: input shapes as torch sees them, batch first; by default what the checkpoint says.
        preprocess, labels: the I/O description, where the checkpoint has none.
        strict: see :meth:`Model.check_binary`.

    Raises:
        ModelFileError: the file is missing, damaged, or of another kind.
        UnsupportedError: a layer that cannot be carried over; it is named.
    """
    for file in (path, weights):
        if file is not None:
            _check_source(Path(file), tflite=file is path)
    loaded = _load(path, arch, model, settings, weights, inputs, preprocess, labels)
    if strict:
        loaded.check_binary()
    return loaded


def _load(
    path: PathLike | None,
    arch: str | None,
    model: str | None,
    settings: Mapping[str, Any] | None,
    weights: PathLike | None,
    inputs: Sequence[Sequence[int]] | None,
    preprocess: Mapping[str, Any] | IODescription | None,
    labels: Sequence[str] | None,
) -> Model:
    """See :func:`load`."""
    if path is not None and Path(path).suffix.lower() in (".tflite", *KERAS):
        if any(v for v in (arch, model, settings, weights, inputs)):
            raise UsageError(
                f"a {Path(path).suffix} file says itself what its layers and its input are",
                where=str(path),
                fix="leave --arch, --model, --set, --weights and --input out",
            )
        return _load_larq(Path(path), preprocess, labels)
    from bdnet_deploy.checkpoint import load_module
    from bdnet_deploy.importers.torch import import_module

    module = load_module(path, arch=arch, model=model, set_=settings, weights=weights)
    io = getattr(module, "bdnet_io", None)
    shape = _input_shape(module, io, inputs)
    graph = import_module(module, shape, name=_model_name(path, arch, model, weights))
    io = _described(io, graph, preprocess, labels)
    source = Path(path if path is not None else weights) if path or weights else None  # type: ignore[arg-type]
    digest = hashlib.sha256(source.read_bytes()).hexdigest() if source else None
    return Model(graph.name, graph, io, source, digest, _module=module)


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


def _load_larq(path: Path, preprocess: Mapping[str, Any] | IODescription | None, labels: Sequence[str] | None) -> Model:
    """A ``.tflite``, or a Keras model by way of one."""
    from bdnet_deploy.importers import keras
    from bdnet_deploy.importers.artifact import load_bytes
    from bdnet_deploy.importers.tflite.reader import read

    content = load_bytes(path)
    data = content if path.suffix.lower() == ".tflite" else keras.convert(path)
    try:
        imported = read(data)
    except BdnetError as error:
        error.where = f"{path}: {error.where}" if error.where else str(path)
        raise
    graph = imported.graph
    graph.name = path.stem
    io = _described(imported.io, graph, preprocess, labels)
    digest = hashlib.sha256(content).hexdigest()
    return Model(path.stem, graph, io, path, digest, imported.notes, _tflite=data)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} samples", fix="a whole number from 1")


def _check_source(path: Path, *, tflite: bool) -> None:
    """Refuse what is not there, and exported files that are not read back; ``tflite`` ones may be."""
    if not path.exists():
        raise no_such_file(path)
    if path.suffix.lower() in TARGETS.values() and path.is_file() and not (tflite and path.suffix.lower() == ".tflite"):
        raise ModelFileError(
            f"this is an exported {path.suffix} file, not a PyTorch model",
            where=str(path),
            fix="give the model.pt that it was exported from; to compare the two: "
            f"bdnet-deploy verify model.pt {path.name}",
        )


def _model_name(path: PathLike | None, arch: str | None, model: str | None, weights: PathLike | None) -> str:
    if path is not None or weights is not None:
        return Path(path or weights or "").stem
    return arch or (model or "model").rpartition(":")[2]


def _input_shape(
    module: nn.Module, io: IODescription | None, inputs: Sequence[Sequence[int]] | None
) -> tuple[int, ...]:
    """The first input's shape, batch first, channels before space."""
    if inputs:
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
    if io is not None and io.inputs and io.inputs[0].shape:
        *space, channels = io.inputs[0].shape
        return (1, channels, *space)
    if hasattr(module, "bdnet_arch"):  # ours know their (H, W, C)
        height, width, channels = module.input_shape
        return (1, channels, height, width)
    raise UsageError("the model does not say the shape of its input", fix="add --input 1x3x224x224 (batch first)")
