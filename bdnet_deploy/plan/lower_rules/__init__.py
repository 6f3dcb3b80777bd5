"""Which kernels run each operator: importing this package enters every rule into :data:`lowering.RULES`."""

from bdnet_deploy.plan.lower_rules import attention, elementwise, moving, pointwise, pooling, products

__all__ = ["attention", "elementwise", "moving", "pointwise", "pooling", "products"]
