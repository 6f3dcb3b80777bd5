"""A float ``.tflite`` model as an int8 one, with ranges from calibration samples: ``quantize(model, samples)``.

What is packed or int8 already stays as it is; inputs and outputs stay float32.

1. :mod:`.folding`: products and sums with constants go into the convolution before them.
2. :mod:`.ranges`: the numpy interpreter runs the samples and notes the least and largest value of every tensor.
3. :mod:`.choice`: which operators become int8, and the scale and zero point of each tensor.
4. :mod:`.rewrite`: the new model, with QUANTIZE and DEQUANTIZE where int8 meets float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bdnet_deploy.export.tflite.int8.choice import choose
from bdnet_deploy.export.tflite.int8.folding import fold
from bdnet_deploy.export.tflite.int8.ranges import Range, observe
from bdnet_deploy.export.tflite.int8.rewrite import rewrite
from bdnet_deploy.export.tflite.schema import Array, Model

if TYPE_CHECKING:
    from bdnet_deploy.passes.ranges import Batches

__all__ = ["quantize"]


def quantize(model: Model, samples: Array | Batches, *, progress: Callable[[int, int], None] | None = None) -> Model:
    """The int8 form of a model with one float32 input.

    Args:
        model: float32, as the lowering emits it; it stays as it is.
        samples: (N, ...) float32 inputs that set the ranges, or such in batches.
        progress: (samples done, samples in all).

    Returns:
        A new model; tensors keep their names.

    Raises:
        UsageError: no samples, samples of another shape, or NaN or infinity in one.
        UnsupportedError: an operator that the interpreter does not know.
    """
    folded = fold(model)
    seen: dict[int, Range] = observe(folded, samples, progress)
    return rewrite(folded, choose(folded, seen))
