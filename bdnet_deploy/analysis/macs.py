"""Multiply-accumulates by kind, and operation counts under the field's two conventions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bdnet_deploy.graph import Conv2d, DType, Graph, Linear, Node

#: kind -> how often a multiply-accumulate of it is one 64-bit word operation's share (a trit is two bits).
KINDS = ("depth-wise 1-bit", "depth-wise 1.58-bit", "point-wise 1-bit", "point-wise 1.58-bit", "other 1-bit",
         "other 1.58-bit", "full-precision")  # fmt: skip


@dataclass
class Macs:
    """Multiply-accumulates of a graph: ``by_kind`` over :data:`KINDS`; padded taps count."""

    by_kind: Counter[str] = field(default_factory=Counter)

    @property
    def full_precision(self) -> int:
        return self.by_kind["full-precision"]

    @property
    def binary(self) -> int:
        """Binary multiply-accumulates, each counted once."""
        return self.by_kind.total() - self.full_precision

    @property
    def binary_operations(self) -> int:
        """Binary multiply-accumulates with every 1.58-bit one counted twice (two bit planes)."""
        return self.binary + sum(n for kind, n in self.by_kind.items() if kind.endswith("1.58-bit"))

    @property
    def ops_bireal(self) -> float:
        """Full-precision MACs + binary operations / 64 (Bi-Real Net, ReActNet)."""
        return self.full_precision + self.binary_operations / 64

    @property
    def ops_flops(self) -> float:
        """Full-precision MACs counted twice + binary operations / 64."""
        return 2 * self.full_precision + self.binary_operations / 64


#: Convention -> its rule, as printed beside every figure.
RULES = {
    "bireal": "full-precision MACs + binary MACs / 64, a 1.58-bit MAC counted twice",
    "flops": "2 x full-precision MACs + binary MACs / 64, a 1.58-bit MAC counted twice",
}


def node_macs(node: Node) -> int:
    """Multiply-accumulates of a convolution or linear layer, padded taps included; 0 for other nodes."""
    if not isinstance(node.op, Conv2d | Linear):
        return 0
    weight = node.inputs[1].type
    return node.output.type.size * (weight.size // weight.shape[0])


def node_kind(node: Node) -> str:
    """Which of :data:`KINDS` a convolution or linear layer is."""
    x, w = node.inputs[0].type, node.inputs[1].type
    if not (x.dtype.is_packed and w.dtype.is_packed):
        return "full-precision"
    bits = "1.58-bit" if DType.TRIT in (x.dtype, w.dtype) else "1-bit"
    if isinstance(node.op, Conv2d) and node.op.groups == x.channels and node.op.groups > 1:
        return f"depth-wise {bits}"
    if isinstance(node.op, Linear) or w.shape[1:3] == (1, 1):
        return f"point-wise {bits}"
    return f"other {bits}"


def count_macs(graph: Graph) -> Macs:
    """Totals over a graph."""
    macs = Macs()
    for node in graph.nodes:
        if isinstance(node.op, Conv2d | Linear):
            macs.by_kind[node_kind(node)] += node_macs(node)
    return macs
