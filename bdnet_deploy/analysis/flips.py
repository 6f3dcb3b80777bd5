"""Signs and trits of a back end's own run that are not those of the float reference, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from bdnet_deploy.analysis.tallies import Tally
from bdnet_deploy.backends import Backend, IntegerBackend
from bdnet_deploy.graph import Array, Graph, Node, Sign, Ternarize, evaluate
from bdnet_deploy.passes import batch_size


@dataclass(eq=False)
class FlipCounter:
    """Counts for one model; the reference runs once for all back ends of a batch."""

    graph: Graph

    @staticmethod
    def shows_layers(backend: Backend) -> bool:
        """Whether the back end shows its layers: the reference and the host library do."""
        return isinstance(backend, IntegerBackend) and type(backend).layers is not IntegerBackend.layers

    def count(self, x: Array, backends: list[tuple[Backend, Tally]]) -> None:
        """Add the flips of one batch of float samples to the tallies; back ends without layers are passed over."""
        shown = [(b, t) for b, t in backends if isinstance(b, IntegerBackend) and self.shows_layers(b)]
        size = batch_size(self.graph, *(b.lowered.graph for b, _ in shown))
        for start in range(0, len(x) if shown else 0, size):
            part = x[start : start + size]
            expected = evaluate(self.graph, [part], keep=True)
            for backend, tally in shown:
                found = backend.layers(part)
                assert found is not None
                for node in backend.lowered.graph.nodes:
                    if not isinstance(node.op, Sign | Ternarize) or node.name not in found:
                        continue
                    twin = expected.get(node.name)
                    if twin is not None and twin.size == found[node.name].size and self._same_kind(node):
                        flips = int((found[node.name].reshape(twin.shape) != twin).sum())
                        tally.add_flips(node.source or node.name, twin.size, flips)

    def _same_kind(self, node: Node) -> bool:
        twin = next(n for n in self.graph.nodes if n.name == node.name)
        return type(twin.op) is type(node.op)
