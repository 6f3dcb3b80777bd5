"""Back ends that run a model: PyTorch, the numpy reference, the host library, foreign runtimes, emulated cores.

A back end is named ``kind[:numerics]``: ``pytorch``, ``reference:fixed16``, ``host:float``, ``lce``, ``onnxruntime``,
``cortex-m4:fixed16`` (any core or board).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bdnet_deploy import targets
from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.graph import NUMERICS, Array, evaluate
from bdnet_deploy.lowering import Lowered

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike, Progress
    from bdnet_deploy.samples import Samples

KINDS = ("pytorch", "reference", "host", "lce", "onnxruntime")
#: Called with (samples done, samples in all).
Step = Callable[[int, int], None]


class Backend(Protocol):
    """Runs float samples (N, H, W, C). ``raw`` gives the first output's own bytes where the back end has such."""

    name: str

    def predict(self, x: Array, progress: Step | None = None) -> Array:
        """Logits (N, classes), float64."""
        ...


def make_backend(
    model: Model, name: str, calibrate: PathLike | Array | Samples | None = None, *, progress: Progress | None = None
) -> Backend:
    """The back end of that name.

    ``progress`` is that of the calibration, where one is necessary.

    Raises:
        UsageError: an unknown name, or fixed numerics without calibration samples.
        MissingPackageError: the runtime is not installed.
    """
    kind, _, numerics = name.partition(":")
    if numerics and numerics not in NUMERICS:
        raise unknown_name("numerics", numerics, NUMERICS)
    if numerics and kind in ("pytorch", "lce", "onnxruntime"):
        raise UsageError(f"'{name}': {kind} runs in its own float numerics", fix=f"--backend {kind}")
    if kind == "pytorch":
        return TorchBackend(model)
    if kind in ("lce", "onnxruntime"):
        return ForeignBackend(model, kind)
    emulated = kind in (*targets.cores(), *targets.boards())
    if not emulated and kind not in ("reference", "host"):
        raise unknown_name("back end", kind, [*KINDS, *targets.cores(), *targets.boards()])
    numerics = numerics or (default_numerics(kind) if emulated else "float")
    need_samples(numerics, calibrate)
    lowered = model.lowered(numerics, calibrate, progress=progress)
    if emulated:
        from bdnet_deploy.firmware import core_of, target

        return CoreBackend(lowered.replanned(sets=core_of(target(kind)).sets), kind)
    return ReferenceBackend(lowered) if kind == "reference" else HostBackend(lowered)


def need_samples(numerics: str, calibrate: object) -> None:
    """Stop where outputs would mean nothing: fixed point without calibration samples.

    Raises:
        UsageError: with what to give.
    """
    if numerics in NUMERICS and numerics != "float" and calibrate is None:
        raise UsageError(
            f"{numerics} needs calibration samples",
            why="they set the ranges of the integers between the layers",
            fix="--calibrate samples.npz (array x: a hundred raw samples of the training set) or a folder of images; "
            "or float numerics",
        )


def default_numerics(target: str) -> str:
    """fixed16 for Cortex-M, float for everything else."""
    core = targets.core(target) if target in targets.cores() else targets.board(target).core
    return "float" if core.is_linux else "fixed16"


class TorchBackend:
    """The torch module itself, in float32."""

    def __init__(self, model: Model) -> None:
        self.name = "PyTorch"
        self.module = model.module()

    def predict(self, x: Array, progress: Step | None = None) -> Array:
        import torch

        with torch.no_grad():
            channels_first = np.moveaxis(x, -1, 1).astype(np.float32)
            # By way of one axis: the strides of a single channel would make PyTorch take it for channels-last.
            tensor = torch.from_numpy(channels_first.flatten()).reshape(channels_first.shape)
            parts = [self.module(part) for part in tensor.split(32)]
        outputs = torch.cat(parts).double().numpy()
        return np.moveaxis(outputs, 1, -1) if outputs.ndim > 2 else np.asarray(outputs)


class IntegerBackend(ABC):
    """A back end over a lowered graph: ``raw`` gives the output's bytes, equal for all of these back ends."""

    def __init__(self, name: str, lowered: Lowered) -> None:
        self.name = f"{name} {lowered.graph.numerics}"
        self.lowered = lowered

    @abstractmethod
    def raw(self, x: Array, progress: Step | None = None) -> Array:
        """The first output (N, ...) for inputs as the graph takes them."""

    def predict(self, x: Array, progress: Step | None = None) -> Array:
        return self.lowered.decode(self.raw(self.lowered.encode(x), progress))


class ReferenceBackend(IntegerBackend):
    """The numpy references."""

    def __init__(self, lowered: Lowered) -> None:
        super().__init__("reference", lowered)

    def raw(self, x: Array, progress: Step | None = None) -> Array:
        parts = [evaluate(self.lowered.graph, [x[i : i + 16]]) for i in range(0, len(x), 16)]
        return np.concatenate([p[self.lowered.graph.outputs[0].name] for p in parts])


class HostBackend(IntegerBackend):
    """The C runtime on this computer."""

    def __init__(self, lowered: Lowered) -> None:
        from bdnet_deploy.export.bdn import write_bdn
        from bdnet_deploy.host import HostModel

        super().__init__("host", lowered)
        self.model = HostModel(write_bdn(lowered.plan))

    def raw(self, x: Array, progress: Step | None = None) -> Array:
        return self.model.run(x)[0].reshape(len(x), *self.lowered.graph.outputs[0].type.shape[1:])


class CoreBackend(IntegerBackend):
    """The C runtime on an emulated core or board, the model linked into the image."""

    def __init__(self, lowered: Lowered, target: str) -> None:
        super().__init__(target, lowered)
        self.target = target

    def raw(self, x: Array, progress: Step | None = None) -> Array:
        from bdnet_deploy.emulated import EmulatedModel

        outputs = []
        with EmulatedModel(self.lowered, self.target) as emulated:
            for i, sample in enumerate(x):
                outputs.append(emulated.run(sample))
                if progress:
                    progress(i + 1, len(x))
        return np.stack(outputs)


class ForeignBackend:
    """A stock runtime on the exported file: Larq Compute Engine or onnxruntime."""

    def __init__(self, model: Model, kind: str) -> None:
        from bdnet_deploy.artifact import foreign_file

        self.name = {"lce": "Larq Compute Engine", "onnxruntime": "onnxruntime"}[kind]
        self.kind = kind
        self.original = model._tflite if kind == "lce" else None
        if self.original is None:
            self.data = foreign_file(model, {"lce": "tflite", "onnxruntime": "onnx"}[kind]).data

    def predict(self, x: Array, progress: Step | None = None) -> Array:
        if self.kind == "lce":
            from bdnet_deploy.peers import lce

            if self.original is not None:  # the file that the model came from
                from bdnet_deploy.importers.tflite.reader import read

                source = read(self.original)
                y = lce.run(self.original, source.inputs[0].encode(x))[0]
                return source.outputs[0].decode(y).astype(np.float64)
            return np.asarray(lce.run(self.data, x)[0], np.float64)
        from bdnet_deploy.peers import onnxruntime

        return np.asarray(onnxruntime.run(self.data, x)[0], np.float64)
