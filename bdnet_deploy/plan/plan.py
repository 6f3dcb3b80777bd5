"""The plan: which kernels run on which tensors, in which memory. Values never change here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bdnet_deploy import bdn_format
from bdnet_deploy.bdn_format import accumulator_bytes, align, kernel_scratch, row_bytes
from bdnet_deploy.graph import Array, DType, Graph, Node, Value


def format_code(dtype: DType) -> int:
    """The number that stands for a dtype in the ``.bdn`` format."""
    return bdn_format.DType[dtype.name]


@dataclass(eq=False)
class PlanTensor:
    """A feature map as the runtime holds it. ``values`` names the graph values that lie in it (aliases share)."""

    values: list[Value]
    height: int
    width: int
    channels: int
    dtype: DType
    place: str = "arena"  # arena, input, output
    offset: int = 0  # bytes in the arena; index of the input or output otherwise
    rows_held: int = 0  # rows in memory: fewer than height in a ring
    ring: int = 0  # bytes in the arena: where the ring of an input that is pushed row by row lies

    def __post_init__(self) -> None:
        self.rows_held = self.rows_held or self.height

    @property
    def row_stride(self) -> int:
        """Bytes of a row: dense elements, or the planes one after the other."""
        row = row_bytes(self.width, self.channels, format_code(self.dtype))
        return align(row, 4) if self.place == "arena" else row

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.rows_held * self.row_stride


@dataclass(eq=False)
class Epilogue:
    """What happens to a step's accumulators: see ``bd_epilogue`` in docs/bdn-format.md. Arrays are per channel."""

    dtype: DType
    mul: Array | None = None
    add: Array | None = None
    residual_mul: Array | None = None
    positive: Array | None = None
    negative: Array | None = None
    bias: Array | None = None
    low: Array | None = None
    high: Array | None = None
    shift: int = 0
    residual_shift: int = 0
    residual_channels: int = 0
    repeats: int = 0  # times that the accumulators' channels are read again


@dataclass(eq=False)
class PlanStep:
    """One step. ``nodes`` are the graph nodes that it computes, the convolution (if any) first."""

    kernel: str | None
    epilogue_kernel: str | None
    nodes: list[Node]
    inputs: list[PlanTensor]
    trunk: PlanTensor | None
    packed: PlanTensor | None
    out_shape: tuple[int, int, int]  # of the accumulators
    acc_dtype: DType
    kind: str = "window"
    groups: int = 1
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad_top_left: tuple[int, int] = (0, 0)
    pad_value: int = 0
    zero_point: int = 0
    weights: Array | None = None  # packed as the kernel reads it
    weight_planes: int = 0
    epilogue: Epilogue | None = None
    rows_per_call: int = 1
    acc_order: int = 0  # of 8-bit accumulators in scratch, see docs/row-contract.md
    why: str = ""  # why this packing
    segment: int = 0  # 0: runs by itself; adjacent steps of one number run together, row by row

    @property
    def name(self) -> str:
        """The layer: where the step's first node came from."""
        return self.nodes[0].source or self.nodes[0].name

    @property
    def outputs(self) -> list[PlanTensor]:
        return [t for t in (self.trunk, self.packed) if t is not None]

    @property
    def scratch(self) -> int:
        """Bytes of accumulators that wait for the epilogue, and of the kernel's own scratch behind them."""
        if self.kernel is None:
            return 0
        _, width, channels = self.out_shape
        own = kernel_scratch(
            self.kernel,
            channels=self.inputs[0].channels,
            groups=self.groups,
            window=self.window,
            width=width,
            outputs=channels,
            stride=self.strides[1],
        )
        if self.epilogue_kernel is None:
            return align(own)
        return accumulator_bytes(width, channels, format_code(self.acc_dtype), self.rows_per_call) + align(own)


@dataclass(frozen=True)
class Moment:
    """Memory while one unit of a plan runs: a whole step, or a segment of steps that run row by row together.

    Attributes:
        first, end: its steps are ``first`` .. ``end - 1``.
        streamed: whether it is a segment.
        names: its layers.
        live: bytes of the arena in use: maps and rings, without scratch.
    """

    first: int
    end: int
    streamed: bool
    names: tuple[str, ...]
    live: int


@dataclass(eq=False)
class Plan:
    """Steps in order over tensors.

    Attributes:
        tensor_bytes: the arena without scratch.
        lower_bound: the most bytes that any unit's tensors take, and scratch: no placement of this mix needs less.
        timeline: memory, unit by unit.
        sets: instruction sets that kernels and packings were chosen for, sorted; none: any core.
    """

    graph: Graph
    tensors: list[PlanTensor]
    steps: list[PlanStep]
    tensor_bytes: int = 0
    lower_bound: int = 0
    timeline: list[Moment] = field(default_factory=list)
    sets: tuple[str, ...] = ()

    @property
    def streamed(self) -> int:
        """How many steps run row by row."""
        return sum(step.segment != 0 for step in self.steps)

    @property
    def pushed(self) -> bool:
        """Whether the input comes row by row, into a ring of the arena."""
        return any(t.place == "input" and t.rows_held < t.height for t in self.tensors)

    @property
    def in_place(self) -> int:
        """How many whole steps write their trunk over their residual."""
        pairs = [(s.trunk, s.inputs[1]) for s in self.steps if s.segment == 0 and s.trunk and len(s.inputs) > 1]
        return sum(a.place == b.place == "arena" and a.offset == b.offset for a, b in pairs)

    @property
    def execution(self) -> str:
        """How the steps run, in words; steps count from 0."""
        words = describe_units([(m.first, m.end, m.streamed) for m in self.timeline], self.in_place)
        return f"{words}, input pushed row by row" if self.pushed else words

    @property
    def scratch_bytes(self) -> int:
        return max((s.scratch for s in self.steps), default=0)

    @property
    def kernels(self) -> list[str]:
        """Names of the kernels that the model needs, sorted."""
        return sorted({k for s in self.steps for k in (s.kernel, s.epilogue_kernel) if k})

    def tensor_of(self, value: Value) -> PlanTensor | None:
        return next((t for t in self.tensors if value in t.values), None)


def describe_units(units: Sequence[tuple[int, int, bool]], in_place: int) -> str:
    """A mix in words.

    Args:
        units: (first step, step behind the last, whether it streams).
        in_place: how many steps work in place.
    """
    parts: list[tuple[int, int, bool]] = []
    for first, end, streamed in units:
        if parts and not streamed and not parts[-1][2]:
            first = parts.pop()[0]
        parts.append((first, end, streamed))
    if len(parts) == 1:
        words = "row by row" if parts[0][2] else "map by map"
    else:
        words = "steps " + ", ".join(
            (f"{first}-{end - 1}" if end - first > 1 else f"{first}") + (" row by row" if streamed else " map by map")
            for first, end, streamed in parts
        )
    return f"{words}, {in_place} in place" if in_place else words


def hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(1, H, W, C) or (1, C) as height, width, channels."""
    if len(shape) == 4:
        return shape[1], shape[2], shape[3]
    return 1, 1, int(np.prod(shape))
