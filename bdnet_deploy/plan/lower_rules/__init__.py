"""Which kernels run each operator: importing this package enters every rule into :data:`lowering.RULES`."""

from bdnet_deploy.plan.lower_rules import pointwise, pooling, products

__all__ = ["pointwise", "pooling", "products"]
