"""What values the tensors of a model have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.errors import UsageError
from bdnet_deploy.export.tflite.schema import Array, Model, TensorKind
from bdnet_deploy.tflite_reference.interpreter import run
from bdnet_deploy.tflite_reference.interpreter import samples as one_by_one

if TYPE_CHECKING:
    from bdnet_deploy.passes.ranges import Batches

#: Beyond it lies no value, but the padding of a maximum, which must never win.
ENDLESS = 1e30
#: Samples that are read from files at once.
_PART = 16
#: Least and largest value.
Range = tuple[float, float]


def observe(
    model: Model, samples: Array | Batches, progress: Callable[[int, int], None] | None = None
) -> dict[int, Range]:
    """Least and largest value of every computed float32 tensor.

    One sample is in memory at a time, and each value only up to its last reader.

    Raises:
        UsageError: samples that do not fit, or NaN or infinity in them.
    """
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    for done, sample in enumerate(_one_by_one(model, samples), 1):
        for index, value in run(model, sample):
            if model.tensors[index].kind is TensorKind.FLOAT32:
                low[index] = min(low.get(index, np.inf), float(value.min(initial=np.inf, where=value > -ENDLESS)))
                high[index] = max(high.get(index, -np.inf), float(value.max(initial=-np.inf, where=value < ENDLESS)))
        if progress is not None:
            progress(done, len(samples))
    return {i: (low[i], high[i]) if low[i] <= high[i] else (0.0, 0.0) for i in low}


def _one_by_one(model: Model, samples: Array | Batches) -> Iterator[list[Array]]:
    if not len(samples):
        raise UsageError("there are no samples")
    parts = [samples] if isinstance(samples, np.ndarray) else samples.batches(_PART)
    for part in parts:
        if not np.isfinite(part).all():
            raise UsageError("a calibration sample has NaN or infinity in it", fix="leave it out")
        yield from one_by_one(model, np.asarray(part, np.float32))
