"""The Python API: a model, and what can be done with it. The command line prints what these calls return."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.formats import TARGETS
from bdnet_deploy.graph import Array, Graph
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import Lowered, float_graph, lower
from bdnet_deploy.samples import ImageSamples, Samples, load_samples

if TYPE_CHECKING:
    from torch import nn

    from bdnet_deploy.artifact import Artifact
    from bdnet_deploy.report import Report

PathLike = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]


@dataclass(eq=False)
class Model:
    """An imported model.

    Attributes:
        name: used for files and C symbols.
        graph: as imported, parameters in double.
        io: what inputs and outputs mean, or None.
        source: the file it came from, if any.
        source_sha256: of that file.
        notes: what the import decided, in sentences: that a dynamic batch is 1, what differs from the file.
    """

    name: str
    graph: Graph
    io: IODescription | None = None
    source: Path | None = None
    source_sha256: str | None = None
    notes: Sequence[str] = ()
    _module: nn.Module | None = None
    #: The ``.tflite`` that the graph was made of.
    _tflite: bytes | None = None
    _lowered: dict[tuple[str, str], Lowered] = field(default_factory=dict)
    _float: Graph | None = None

    # -- parts --------------------------------------------------------------------------------------------------------

    def module(self) -> nn.Module:
        """The torch module: trainable, or of an ``.onnx`` or ``.pt2`` file one that runs its nodes.

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

    def float_graph(self) -> Graph:
        """The graph in float numerics that files for other runtimes carry, and that they are compared with."""
        if self._float is None:
            self._float = float_graph(self.graph)[0]
        return self._float

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
        core: str | None = None,
    ) -> Report:
        """Layers, shapes, MACs, weights, what each layer was recognised as, and why it is not binary.

        Args:
            numerics: also how our runtime would use memory with these numerics. Needs no samples: the ranges of fixed
                point do not change sizes.
            ram, cache, push_rows: of that plan, as for :meth:`export`.
            core: also which kernels and packings of weights the plan takes on this core or board, and why; numerics as
                for :meth:`profile` where none are given.

        Raises:
            DoesNotFitError: no plan fits into ``ram``.
            UsageError: a setting of the plan, but no numerics; or there is no such core.
            UnsupportedError: numerics were given, and no kernel runs a layer.
        """
        from bdnet_deploy.analysis.inspect import inspect_graph
        from bdnet_deploy.analysis.kernels import kernels_table
        from bdnet_deploy.analysis.memory import mixes_table, timeline_table
        from bdnet_deploy.backends import default_numerics
        from bdnet_deploy.firmware import core_of, target

        report = inspect_graph(self.graph, io=self.io)
        report.tables[0].notes += self.notes
        if core is not None:
            numerics = numerics or default_numerics(core)
        if numerics is None:
            if ram is not None or cache is not None or push_rows:
                raise UsageError(
                    "memory depends on the numerics",
                    fix="add --numerics float, --numerics fixed16 or --numerics fixed8",
                )
            return report
        sets = core_of(target(core)).sets if core is not None else ()
        plan = self.lowered(numerics).replanned(ram=ram, cache=cache, push_rows=push_rows, sets=sets).plan
        report.facts |= {"numerics": numerics, "execution": plan.execution}
        report.tables += [mixes_table(plan), timeline_table(plan)]
        if core is not None:
            report.facts["core"] = core
            report.tables.append(kernels_table(plan))
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
        allow_real: Iterable[str] = (),
        profile: str | None = None,
        int8: bool = False,
        core: str | None = None,
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
            allow_real: layers that may be real though their training is not finished (:meth:`check_binary`).
            profile: of ``tflite`` and ``onnx``: :data:`bdnet_deploy.formats.PROFILES`, by default the first.
            int8: of ``tflite``: what is not binary in 8 bits; needs ``calibrate``.
            core: the core or board that the kernels and the packing of the weights are chosen for (``bdn`` and ``c``); the
                file runs on others, too, more slowly.

        Raises:
            DoesNotFitError: no plan fits into ``ram``, or the firmware cannot run the model: every lack is named.
            UsageError: unknown target or numerics, or fixed numerics without samples.
            UnsupportedError: the target cannot express a layer, or weights that should be binary are not yet.
        """
        from bdnet_deploy.analysis.recognised import check_finished
        from bdnet_deploy.artifact import export_model

        if target not in TARGETS:
            raise unknown_name("target", target, TARGETS)
        check_finished(self.graph, allow_real)
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
            profile=profile,
            int8=int8,
            core=core,
            progress=progress,
        )

    def verify(
        self,
        artifact: PathLike,
        *,
        inputs: PathLike | Array | Samples | None = None,
        calibrate: PathLike | Array | Samples | None = None,
        limit: int = 20,
        timeout: float = 300.0,
        min_agreement: float | None = None,
    ) -> Report:
        """Compare an exported file with this model: decoded parameters, then layer by layer, then end to end.

        Args:
            artifact: a ``.tflite``, ``.onnx``, ``.bdn`` or ``.c`` file; of other programs, too.
            inputs: samples to compare on; None: random ones; ``"bundled"``: ``test.npz`` beside the model's file, else the
                test vector in the artifact.
            calibrate: the samples that a fixed-point file was exported with; every byte is compared then, else its
                weights and how far its predictions agree with float.
            limit: use at most so many samples.
            timeout: seconds that one process of a foreign runtime may take.
            min_agreement: share of top-1 predictions that must agree; None: 0.99, and 0.9 for files of integers
                (fixed16, fixed8, int8), which random inputs do not judge.

        Raises:
            MismatchError: they differ; ``error.report`` is the report, the first divergent layer is named, with the
                likely cause where one fits. Exit code 1 instead of 4: a runtime crashed, hung or refused the file.
        """
        from bdnet_deploy.analysis.verify import verify

        return verify(
            self,
            Path(artifact),
            inputs=inputs,
            calibrate=calibrate,
            limit=limit,
            timeout=timeout,
            min_agreement=min_agreement,
        )

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
        resume: PathLike | None = None,
        per_class: bool = False,
        flips: bool = False,
        skip_broken: bool = False,
        timeout: float = 300.0,
        progress: Progress | None = None,
    ) -> Report:
        """Top-1 and top-5 accuracy of several back ends side by side, and how often they agree with the first.

        Args:
            data: samples as :meth:`samples` takes them; batches of at most 256 MB are held at a time.
            backends: names (:mod:`bdnet_deploy.backends`); by default ``pytorch``, or ``reference`` for a model that is not
                from there, and ``host:float``.
            calibrate: samples that set the ranges of fixed point and int8.
            limit: use at most so many samples.
            resume: a file in which the state of the run is kept: the same call goes on where one was stopped.
            per_class: a table of the accuracy of each class.
            flips: a table of the signs and trits that are not those of the float reference, for back ends that show them.
            skip_broken: leave image files out that cannot be read, and name them; else the first one is an error.
            timeout: seconds that one process of a foreign runtime may take, for one batch.
            progress: called with a back end's name, samples done, and samples in all.

        Raises:
            UsageError: samples that do not fit, classes that the model has not, the state of another run.
            PeerError: a foreign runtime refused, crashed or hung.
        """
        from bdnet_deploy.analysis.evaluate import evaluate

        backends = backends or ("reference" if self._module is None else "pytorch", "host:float")
        return evaluate(
            self,
            data,
            backends,
            calibrate=calibrate,
            limit=limit,
            resume=resume,
            per_class=per_class,
            flips=flips,
            skip_broken=skip_broken,
            timeout=timeout,
            progress=progress,
        )

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


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} samples", fix="a whole number from 1")
