"""A model on an emulated core: the application ``runner`` with the model linked in, fed over its port."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from bdnet_deploy.emulator import TIMEOUT_S, Emulator, RunResult
from bdnet_deploy.emulator.client import STEP_MARKERS
from bdnet_deploy.errors import BdnetError
from bdnet_deploy.firmware import build_with_model, target
from bdnet_deploy.graph import Array
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.targets import Board, Core

#: Regions of a runner that was built with BD_RUNNER_SLICES.
SLICE_MARKERS = {"enter": "runner_slice_enter", "leave": "runner_slice_leave", "label": STEP_MARKERS["enter"]}


class Runner:
    """The protocol of ``firmware_examples/runner``: requests over the port, answers with a status word first."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator

    def request(
        self, kind: str, data: bytes = b"", *, answer: int, count: bool = False, timeout_s: float = TIMEOUT_S
    ) -> tuple[int, bytes, RunResult]:
        """Status word, ``answer`` bytes (none after an error), and how the run went."""
        self.emulator.send(kind.encode("ascii").ljust(4, b"\0") + data)
        result = self.emulator.run(count=count, timeout_s=timeout_s)
        if len(result.output) < 4:
            raise BdnetError(
                "the emulated program did not answer",
                where=self.emulator.core.name,
                why=f"it ended with exit code {result.exit_code}" if result.stopped == "exit" else result.stopped,
            )
        status = int.from_bytes(result.output[:4], "little")
        payload = result.output[4:]
        if status == 0 and len(payload) != answer:
            raise BdnetError(f"the emulated program answered {len(payload)} bytes instead of {answer}")
        return status, payload, result

    def load(self, bdn: bytes) -> int:
        """Load a model into a runner without one; the ``bd_status``."""
        return self.request("L", len(bdn).to_bytes(4, "little") + bdn, answer=0)[0]

    def infer(self, data: bytes, out_bytes: int, *, count: bool = False, timeout_s: float = TIMEOUT_S) -> RunResult:
        """One inference. The result's ``output`` is the output's bytes.

        Raises:
            BdnetError: the runtime refuses.
        """
        status, payload, result = self.request("R", data, answer=out_bytes, count=count, timeout_s=timeout_s)
        if status != 0:
            raise BdnetError(f"the runtime answers bd_status {status}", where=self.emulator.core.name)
        return RunResult(**{**vars(result), "output": payload})

    def self_test(self) -> bool:
        status, payload, _ = self.request("T", answer=4)
        return status == 0 and payload[:1] == b"\1"


class EmulatedModel:
    """One model on one emulated core or board. Use as a context manager.

    Args:
        lowered: the model.
        name: of the core or board, or a core or board itself.
        slices: inferences are made in slices, and regions of the counts are slices instead of steps; ``labels`` says
            which step a slice calls.

    Raises:
        DoesNotFitError: the model is too large for the target.
    """

    def __init__(self, lowered: Lowered, name: str | Core | Board, *, slices: bool = False) -> None:
        where = target(name) if isinstance(name, str) else name
        self.board = where if isinstance(where, Board) else None
        self.core = where.core if isinstance(where, Board) else where
        graph = lowered.graph
        self.input = graph.inputs[0].type
        self.output = graph.outputs[0].type
        tensor = lowered.plan.tensor_of(graph.outputs[0])
        assert tensor is not None
        self.stored = tensor.dtype.numpy
        self.output_bytes = self.output.size * self.stored.itemsize
        input_bytes = self.input.size * self.input.dtype.numpy.itemsize
        if lowered.plan.pushed:  # the runner holds one row
            input_bytes //= self.input.shape[1]
        defines: dict[str, str | int | None] = {
            "BD_RUNNER_INPUT_BYTES": input_bytes,
            "BD_RUNNER_OUTPUT_BYTES": self.output_bytes,
        }
        if slices:
            defines["BD_RUNNER_SLICES"] = 1
        self._folder = tempfile.TemporaryDirectory(prefix="bdnet-deploy-")
        try:
            self.image = build_with_model(
                "runner",
                lowered,
                where,
                Path(self._folder.name),
                defines=defines,
                port=None if self.core.is_linux else "semihosting",
            )
            self.emulator = Emulator(
                self.image, self.core, self.board, markers=SLICE_MARKERS if slices else STEP_MARKERS
            )
            self.emulator.run()  # boot, load and check the model: not part of an inference
        except BaseException:
            self._folder.cleanup()
            raise
        self.runner = Runner(self.emulator)

    def run(self, x: Array) -> Array:
        """One inference of a sample (H, W, C) as the graph takes it; the output without batch."""
        return self.count(x, counted=False)[0]

    def count(self, x: Array, *, counted: bool = True, timeout_s: float = TIMEOUT_S) -> tuple[Array, RunResult]:
        """The same, with instruction counts. ``timeout_s``: real seconds that it may take."""
        data = np.ascontiguousarray(x, self.input.dtype.numpy).tobytes()
        result = self.runner.infer(data, self.output_bytes, count=counted, timeout_s=timeout_s)
        values = np.frombuffer(result.output, self.stored).reshape(self.output.shape[1:])
        return values.astype(self.output.dtype.numpy), result

    def close(self) -> None:
        self.emulator.close()
        self._folder.cleanup()

    def __enter__(self) -> EmulatedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
