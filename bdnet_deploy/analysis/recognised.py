"""What the importer recognised each layer as, and the check that no layer stayed real unnoticed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bdnet_deploy.errors import UnsupportedError, unknown_name
from bdnet_deploy.graph import BoxSum, Conv2d, DType, Graph, Linear, Node, Value

_WORDS = {DType.BIT: "1-bit", DType.TRIT: "1.58-bit", DType.UBIT: "0/1"}


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer of the user's model.

    Attributes:
        name: the layer's source, e.g. ``"body.3.conv"``.
        node: its node in the graph.
        form: what it was recognised as: ``"1-bit"``, ``"1.58-bit activation, 1-bit weights"``, ``"real"``, ...
        line: the user's source line, or None.
        reason: why it is not 1-bit, or None.
        first: no other layer lies between the input and it.
        last: no other layer lies between it and an output: a classifier.
    """

    name: str
    node: Node
    form: str
    line: str | None
    reason: str | None
    first: bool
    last: bool

    @property
    def binary(self) -> bool:
        """Whether activation and weights are bits, trits or ubits."""
        return self.form != "real"


def owner(node: Node) -> str | None:
    """Of a convolution that the importer put beside a layer, for its border or for asymmetric weights, that layer."""
    helps = isinstance(node.op, Conv2d | Linear) and node.name in (f"{node.source}.border", f"{node.source}.sum")
    return node.source if helps else None


def find_layers(graph: Graph) -> list[Layer]:
    """The layers of a graph in order."""
    sums = {n.name.removesuffix(".sum") for n in graph.nodes if isinstance(n.op, BoxSum) or owner(n)}
    nodes = [n for n in graph.nodes if isinstance(n.op, Conv2d | Linear) and owner(n) is None]
    first, last = _without_before(graph, nodes), _without_behind(graph, nodes)
    return [
        Layer(
            name := node.source or node.name,
            node,
            _form(node, asymmetric=name in sums),
            graph.lines.get(name) or None,
            graph.reasons.get(name),
            node in first,
            node in last,
        )
        for node in nodes
    ]


def _form(node: Node, *, asymmetric: bool) -> str:
    x, w = (v.type.dtype for v in node.inputs[:2])
    if not (x.is_packed and w.is_packed):
        return "real"
    weights = f"asymmetric {_WORDS[w]}" if asymmetric else _WORDS[w]
    return weights if _WORDS[x] == weights else f"{_WORDS[x]} activation, {weights} weights"


def _without_before(graph: Graph, layers: Sequence[Node]) -> set[Node]:
    """The layers that no other layer precedes."""
    behind: set[Value] = set()  # values that a layer precedes
    found = set()
    for node in graph.nodes:
        below = any(v in behind for v in node.inputs)
        if node in layers and not below:
            found.add(node)
        if below or node in layers:
            behind.add(node.output)
    return found


def _without_behind(graph: Graph, layers: Sequence[Node]) -> set[Node]:
    """The layers that no other layer follows."""
    before: set[Value] = set()  # values that a layer follows
    found = set()
    for node in reversed(graph.nodes):
        followed = node.output in before
        if node in layers and not followed:
            found.add(node)
        if followed or node in layers:
            before.update(node.inputs)
    return found


def check_binary(graph: Graph, allow_real: Iterable[str] = ()) -> None:
    """Refuse a graph in which a layer is real that is neither the first, nor a classifier, nor allowed to be.

    Args:
        graph: as imported, or with numerics.
        allow_real: names of layers, or patterns with ``*`` and ``?``, which may be real too.

    Raises:
        UnsupportedError: every such layer is named with its reason.
        UsageError: a pattern that no layer matches.
    """
    layers = find_layers(graph)
    wrong = [layer for layer in layers if not (layer.binary or layer.first or layer.last)]
    wrong = _not_allowed(wrong, layers, allow_real)
    if not wrong:
        return
    count = "a layer that should be binary is" if len(wrong) == 1 else f"{len(wrong)} layers that should be binary are"
    raise UnsupportedError(
        f"{count} real",
        where=graph.name,
        why=_reasons(wrong),
        fix="finish the training or load the right checkpoint; see docs/importing.md for each reason; what is meant to "
        f"be real: --allow-real '{wrong[0].name}'",
    )


def check_finished(graph: Graph, allow_real: Iterable[str] = ()) -> None:
    """Refuse a graph with layers that are real only because their training is not finished.

    Args:
        graph: as imported.
        allow_real: as for :func:`check_binary`.

    Raises:
        UnsupportedError: every such layer is named with its reason.
        UsageError: a pattern that no layer matches.
    """
    layers = find_layers(graph)
    wrong = _not_allowed([layer for layer in layers if layer.name in graph.unfinished], layers, allow_real)
    if wrong:
        raise UnsupportedError(
            f"the weights of {'a layer' if len(wrong) == 1 else f'{len(wrong)} layers'} are not binary yet",
            where=graph.name,
            why=_reasons(wrong),
            fix="load the checkpoint of the end of the training, or finish it; to deploy real weights all the same: "
            "--allow-real '*'",
        )


def _not_allowed(wrong: Sequence[Layer], layers: Sequence[Layer], allow_real: Iterable[str]) -> list[Layer]:
    """The layers that no pattern names."""
    patterns = list(allow_real)
    for pattern in patterns:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers):
            raise unknown_name("layer", pattern, [layer.name for layer in layers])
    return [layer for layer in wrong if not any(fnmatchcase(layer.name, p) for p in patterns)]


def _reasons(layers: Sequence[Layer]) -> str:
    """One line a layer."""
    return "\n     ".join(
        f"{layer.name}{f' ({layer.line})' if layer.line else ''}: {layer.reason or 'no reason is known'}"
        for layer in layers
    )
