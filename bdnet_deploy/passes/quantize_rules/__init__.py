"""How each operator becomes integer: importing this package enters every rule into :data:`quantizer.RULES`."""

from bdnet_deploy.passes.quantize_rules import pointwise, pooling, products

__all__ = ["pointwise", "pooling", "products"]
