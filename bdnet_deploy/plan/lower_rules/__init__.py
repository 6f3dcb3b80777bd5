"""Which kernels run each operator: importing this package enters every rule into :data:`lowering.RULES`."""

from bdnet_deploy.plan.lower_rules import attention, elementwise, pointwise, pooling, products

__all__ = ["attention", "elementwise", "pointwise", "pooling", "products"]
