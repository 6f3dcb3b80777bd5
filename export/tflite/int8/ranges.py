"""What values the tensors of a model have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from bdnet_deploy.errors import UsageError
from bdnet_deploy.export.tflite.schema import Array, Model, TensorKind
from bdnet_deploy.tflite_reference.interpreter import run
from bdnet_deploy.tflite_reference.interpreter import samples as one_by_one

#: Beyond it lies no value, but the padding of a maximum, which must never win.
ENDLESS = 1e30
#: Least and largest value.
Range = tuple[float, float]


class SampleSet(Protocol):
    """Samples that need not all be in memory, such as :class:`bdnet_deploy.samples.Samples`."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Array]:
        """(n, ...) of at most ``size`` samples each, in order."""


def observe(
    model: Model, samples: Array | SampleSet, progress: Callable[[int, int], None] | None = None
) -> dict[int, Range]:
    """Least and largest value of every computed float32 tensor, over all samples.

    Of a sample set one sample is in memory at a time, and each value only up to its last reader.

    Raises:
        UsageError: samples that do not fit, or NaN or infinity in them.
    """
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    if not len(samples):
        raise UsageError("there are no calibration samples")
    batches = np.split(samples, len(samples)) if isinstance(samples, np.ndarray) else samples.batches(1)
    for done, sample in enumerate((s for batch in batches for s in one_by_one(model, _checked(batch))), 1):
        for index, value in run(model, sample):
            if model.tensors[index].kind is TensorKind.FLOAT32:
                low[index] = min(low.get(index, np.inf), float(value.min(initial=np.inf, where=value > -ENDLESS)))
                high[index] = max(high.get(index, -np.inf), float(value.max(initial=-np.inf, where=value < ENDLESS)))
        if progress is not None:
            progress(done, len(samples))
    return {i: (low[i], high[i]) if low[i] <= high[i] else (0.0, 0.0) for i in low}


def _checked(batch: Array) -> Array:
    if not np.isfinite(batch).all():
        raise UsageError("a calibration sample has NaN or infinity in it", fix="leave it out")
    return np.asarray(batch, np.float32)
