"""What packings of weights and of epilogues share: the step that they look at, and exact rewrites of what follows it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bdnet_deploy.graph import Array, Conv2d, DType, Linear
from bdnet_deploy.plan.plan import Epilogue, PlanStep
from bdnet_deploy.plan.variants import variants


class Packing(Protocol):
    """One layout of weights, of kernels with a suffix in their names."""

    @property
    def suffix(self) -> str:
        """Of the kernels' names, behind two underscores."""

    def take(self, step: PlanStep, sets: Collection[str]) -> bool:
        """Make the step run by a kernel of this packing, where it has one that pays on a core with ``sets``.

        Args:
            step: lowered and fused, with its kernel for canonical weights. Unchanged unless True is returned; then
                ``kernel``, ``weights``, ``why`` and all that the kernel asks for are set.
        """

    def unpack(self, blob: bytes, shape: tuple[int, ...], step: PlanStep) -> Array:
        """The weights (O, kh, kw, C / groups) as levels, of the constants of a step that :meth:`take` took."""


class EpiloguePacking(Protocol):
    """One layout of an epilogue's parameters, of epilogues with a suffix in their names."""

    @property
    def suffix(self) -> str:
        """Of the kernels' names, behind two underscores."""

    def takes(self, step: PlanStep, sets: Collection[str]) -> str | None:
        """The name of the epilogue for a step on a core with ``sets``; None where it has none that pays."""

    def pack(self, step: PlanStep) -> bytes:
        """The records of the step's epilogue, as they lie at ``bd_epilogue.mul``."""


@dataclass(frozen=True)
class Site:
    """A binary or ternary convolution, as packings see it.

    Attributes:
        conv: its attributes.
        weights: levels, (O, kh, kw, C / groups).
        x, w: dtypes of input and weights.
        in_size, out_size: (height, width).
    """

    conv: Conv2d
    weights: Array
    x: DType
    w: DType
    in_size: tuple[int, int]
    out_size: tuple[int, int]

    @property
    def taps(self) -> int:
        """Products of one accumulator, padding included."""
        return int(np.prod(self.weights.shape[1:]))

    @property
    def depthwise(self) -> bool:
        return self.conv.groups == self.weights.shape[0] > 1 and self.weights.shape[3] == 1


def site(step: PlanStep) -> Site | None:
    """The convolution or linear layer of packed operands that ``step`` begins with, if it does."""
    op = step.nodes[0].op
    if not isinstance(op, Conv2d | Linear) or step.kernel is None or "__" in step.kernel:
        return None
    x, w = step.nodes[0].inputs[:2]
    if not (x.type.dtype.is_packed and w.type.dtype.is_packed) or w.data is None:
        return None
    weights = w.data if w.data.ndim == 4 else w.data.reshape(w.data.shape[0], 1, 1, w.data.shape[1])
    source = step.inputs[0]
    conv = op if isinstance(op, Conv2d) else Conv2d()
    return Site(conv, weights, x.type.dtype, w.type.dtype, (source.height, source.width), step.out_shape[:2])


def has_variant(kernel: str, sets: Collection[str]) -> bool:
    """Whether a core with ``sets`` has a faster implementation of ``kernel`` than plain C."""
    return bool(set(variants().get(kernel, ())) & set(sets))


def threshold(step: PlanStep) -> Array | None:
    """Where nothing but a sign reads the accumulators: its thresholds, per output."""
    e = step.epilogue
    if e is None or e.mul is not None or e.positive is not None or e.repeats or step.trunk is not None:
        return None
    return e.low if e.high is None and step.packed is not None and step.packed.dtype is not DType.UBIT else None


def store_packed(step: PlanStep) -> None:
    """The step's kernel compares and packs itself: no accumulators, no epilogue."""
    step.trunk, step.packed = step.packed, None
    step.epilogue = step.epilogue_kernel = None
    step.acc_dtype = DType.I8  # none are stored


def can_fold(step: PlanStep) -> bool:
    """Whether a fixed-point affine reads the accumulators in the same step and stays exact when they become counts."""
    e = step.epilogue
    if e is None or e.mul is None or e.dtype is DType.F32 or not 0 <= e.shift < 15:
        return False
    return bool(np.all(np.abs(e.mul.astype(np.int64)) <= 0x7FFF))


def fold_counts(epilogue: Epilogue, taps: int, scale: int) -> None:
    """Let the affine of a step read counts n instead of values ``taps - scale * n``.

    Exact: the sum of products is the same number for every n. The factor changes its sign, the shift takes up ``scale``.

    Args:
        epilogue: of a step that :func:`can_fold` takes.
        taps: the value of a count of 0.
        scale: 1 or 2.
    """
    assert epilogue.mul is not None and epilogue.add is not None and scale in (1, 2)
    mul = epilogue.mul.astype(np.int64)
    add = epilogue.add.astype(np.int64) + (taps << epilogue.shift) * mul
    epilogue.mul = -mul
    epilogue.add = (add + 2**31) % 2**32 - 2**31  # sums are modulo 2**32
    epilogue.shift += scale - 1
