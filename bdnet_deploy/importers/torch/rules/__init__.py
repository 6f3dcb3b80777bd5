"""How one recorded tensor becomes graph operators, given the tensors that it is made from."""

from bdnet_deploy.importers.torch.rules.one import (
    affine_rule,
    broadcast_rule,
    limits_rule,
    lines_rule,
    map_rule,
    quantize_rule,
    staircase_rule,
    unary_rule,
)
from bdnet_deploy.importers.torch.rules.rule import Rule, Source
from bdnet_deploy.importers.torch.rules.several import (
    max_pool_rule,
    move_rule,
    norm_rule,
    operator_rule,
    pad_rule,
    reduce_rule,
    softmax_rule,
)
from bdnet_deploy.importers.torch.rules.two import (
    comparison_rule,
    logic_rule,
    matmul_rule,
    product_rule,
    quotient_rule,
    renumber_rule,
    sum_rule,
)

__all__ = [
    "Rule",
    "Source",
    "affine_rule",
    "broadcast_rule",
    "comparison_rule",
    "limits_rule",
    "lines_rule",
    "logic_rule",
    "map_rule",
    "matmul_rule",
    "max_pool_rule",
    "move_rule",
    "norm_rule",
    "operator_rule",
    "pad_rule",
    "product_rule",
    "quantize_rule",
    "quotient_rule",
    "reduce_rule",
    "renumber_rule",
    "softmax_rule",
    "staircase_rule",
    "sum_rule",
    "unary_rule",
]
