"""Back ends that run a model: PyTorch, the numpy reference, the host library, foreign runtimes, emulated cores.

A back end is named ``kind[:form]``: ``pytorch``; ``reference``, ``host`` and any core or board with numerics
(``host:fixed8``, ``cortex-m4:fixed16``); ``lce`` with a mode (``lce:indirect``); ``tflite`` with a form of the file
(``tflite:int8``); ``onnxruntime``. Or it is an exported file: ``model.bdn``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bdnet_deploy import targets
from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.formats import TARGETS
from bdnet_deploy.graph import NUMERICS, Array, evaluate
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.peers.jobs import TIMEOUT_S

if TYPE_CHECKING:
    from bdnet_deploy.emulated import EmulatedModel
    from bdnet_deploy.model import Model, PathLike, Progress
    from bdnet_deploy.samples import Samples

KINDS = ("pytorch", "reference", "host", "lce", "tflite", "onnxruntime")
#: Called with (samples done, samples in all).
Step = Callable[[int, int], None]


class Backend(Protocol):
    """Runs float samples (N, H, W, C). ``raw`` gives the first output's own bytes where the back end has such."""

    name: str

    def predict(self, x: Array, progress: Step | None = None) -> Array:
        """Logits (N, classes), float64."""
        ...

    def close(self) -> None:
        """Let go of processes and files."""
        ...


def make_backend(
    model: Model,
    name: str,
    calibrate: PathLike | Array | Samples | None = None,
    *,
    progress: Progress | None = None,
    timeout: float = TIMEOUT_S,
) -> Backend:
    """The back end of that name.

    Args:
        model: what is to run.
        name: see the head of this module.
        calibrate: samples that set the ranges of fixed point and int8.
        progress: of the calibration, where one is necessary.
        timeout: seconds that one process of a foreign runtime may take, for one batch.

    Raises:
        UsageError: an unknown name, or fixed numerics without calibration samples.
        MissingPackageError: the runtime is not installed.
    """
    if Path(name).suffix.lower() in TARGETS.values():
        from bdnet_deploy.foreign_backends import file_backend

        return file_backend(Path(name), timeout=timeout)
    kind, _, form = name.partition(":")
    if kind in ("lce", "tflite", "onnxruntime"):
        from bdnet_deploy.foreign_backends import foreign_backend

        return foreign_backend(model, kind, form, calibrate, timeout=timeout)
    if form and form not in NUMERICS:
        raise unknown_name("numerics", form, NUMERICS)
    if kind == "pytorch":
        if form:
            raise UsageError(f"'{name}': pytorch runs in its own float numerics", fix="--backend pytorch")
        return TorchBackend(model)
    emulated = kind in (*targets.cores(), *targets.boards())
    if not emulated and kind not in ("reference", "host"):
        raise unknown_name("back end", kind, [*KINDS, *targets.cores(), *targets.boards()])
    numerics = form or (default_numerics(kind) if emulated else "float")
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

    def close(self) -> None:
        """Nothing is open."""


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

    def layers(self, x: Array) -> dict[str, Array] | None:
        """Values of the graph in a run from end to end, name -> (N, ...), for ``x`` as :meth:`predict` takes it.

        None: this back end does not show them.
        """
        return None

    def close(self) -> None:  # noqa: B027  most have nothing open
        """Let go of processes and files."""


class ReferenceBackend(IntegerBackend):
    """The numpy references."""

    def __init__(self, lowered: Lowered) -> None:
        super().__init__("reference", lowered)

    def raw(self, x: Array, progress: Step | None = None) -> Array:
        parts = [evaluate(self.lowered.graph, [x[i : i + 16]]) for i in range(0, len(x), 16)]
        return np.concatenate([p[self.lowered.graph.outputs[0].name] for p in parts])

    def layers(self, x: Array) -> dict[str, Array]:
        return evaluate(self.lowered.graph, [self.lowered.encode(x)], keep=True)


class HostBackend(IntegerBackend):
    """The C runtime on this computer."""

    def __init__(self, lowered: Lowered) -> None:
        from bdnet_deploy.export.bdn import write_bdn
        from bdnet_deploy.host import HostModel

        super().__init__("host", lowered)
        self.data = write_bdn(lowered.plan)
        self.model = HostModel(self.data)

    def raw(self, x: Array, progress: Step | None = None) -> Array:
        return self.model.run(x)[0].reshape(len(x), *self.lowered.graph.outputs[0].type.shape[1:])

    def layers(self, x: Array) -> dict[str, Array]:
        from bdnet_deploy.bdn_reader import BdnReader

        return BdnReader(self.data).values(self.lowered, self.lowered.encode(x))


class CoreBackend(IntegerBackend):
    """The C runtime on an emulated core or board, the model linked into the image."""

    def __init__(self, lowered: Lowered, target: str) -> None:
        super().__init__(target, lowered)
        self.target = target
        self._emulated: EmulatedModel | None = None

    def raw(self, x: Array, progress: Step | None = None) -> Array:
        from bdnet_deploy.emulated import EmulatedModel

        if self._emulated is None:  # linked and booted once, for all batches
            self._emulated = EmulatedModel(self.lowered, self.target)
        outputs = []
        for i, sample in enumerate(x):
            outputs.append(self._emulated.run(sample))
            if progress:
                progress(i + 1, len(x))
        return np.stack(outputs)

    def close(self) -> None:
        if self._emulated is not None:
            self._emulated.close()
            self._emulated = None
