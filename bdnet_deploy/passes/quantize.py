"""Choose fixed-point numerics: every real operator becomes an integer one whose reference defines every byte."""

from __future__ import annotations

from bdnet_deploy.graph import DType, Graph, Quant
from bdnet_deploy.passes import quantize_rules  # noqa: F401  enters the rules
from bdnet_deploy.passes.quantizer import Quantizer, QuantizeReport
from bdnet_deploy.passes.ranges import Ranges


def quantize(
    graph: Graph, numerics: str, ranges: Ranges, *, inputs: list[tuple[DType, Quant]] | None = None
) -> tuple[Graph, QuantizeReport]:
    """The real graph ``graph`` in ``numerics``.

    Args:
        graph: real, with affine maps merged.
        numerics: ``"fixed16"`` or ``"fixed8"``.
        ranges: of the same graph's values.
        inputs: dtype and quantization of each graph input (raw pixels: u8 with the scale and zero point of the I/O
            description); None for int8 by the calibrated range.

    Raises:
        UnsupportedError: parameters that fixed point cannot carry; names the layer.
    """
    return Quantizer(graph, numerics, ranges, inputs).run()
