"""How each operator becomes integer: importing this package enters every rule into :data:`quantizer.RULES`."""

from bdnet_deploy.passes.quantize_rules import (
    attention,
    elementwise,
    maps,
    moving,
    pointwise,
    pooling,
    products,
    quantizing,
)

__all__ = ["attention", "elementwise", "maps", "moving", "pointwise", "pooling", "products", "quantizing"]
