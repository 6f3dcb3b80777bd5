"""Layers alone, layers in a row, and whole files in a foreign runtime, against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.analysis.comparing.behaviour import cause_of_inputs
from bdnet_deploy.analysis.comparing.decoded import layer_of
from bdnet_deploy.analysis.comparing.layers import TOLERANCE, compare_layer, compare_top1
from bdnet_deploy.analysis.comparing.rounding import largest_term
from bdnet_deploy.analysis.comparing.settings import Settings
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Array, Graph, Node
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.peers import PeerError
from bdnet_deploy.peers.jobs import Earlier, Job, Runtime
from bdnet_deploy.report import Column, Table, Value

if TYPE_CHECKING:
    from bdnet_deploy.analysis.comparing.ends import Ends
    from bdnet_deploy.importers.artifact import Layer

#: Samples that the search for a cause runs.
_TRIED = 4
#: Where no sign flipped on the way, outputs may differ by this share of the largest: roundings of many layers add up.
QUIET_TOLERANCE = 1e-4


@dataclass(eq=False)
class Reference:
    """What the file's values should be, by the names that they have in the file.

    Attributes:
        graph: the model's.
        inputs: (N, ...) of each graph input.
        values: name in the file -> (n, ...) of the first n inputs; ``nodes`` -> the model's node.
        outputs: (N, ...) of each output.
        renamed: the model's name of a value -> the file's.
    """

    graph: Graph
    inputs: list[Array]
    values: dict[str, Array]
    nodes: dict[str, Node]
    outputs: list[Array]
    renamed: dict[str, str]

    @property
    def samples(self) -> int:
        """How many samples ``values`` are of."""
        return len(next(iter(self.values.values()))) if self.values else 0

    @cached_property
    def by_model(self) -> dict[str, Array]:
        """The model's name -> (n, ...) of what :attr:`values` has, and of the inputs."""
        known = {node.name: self.values[name] for name, node in self.nodes.items()}
        known |= {v.name: a for v, a in zip(self.graph.inputs, self.inputs)}
        return {name: a[: self.samples] for name, a in known.items()}


def flips_table() -> Table:
    """Signs and trits that changed in a run from end to end."""
    return Table(
        "sign flips",
        [
            Column("runtime"),
            Column("layer"),
            Column("values", align="right", format=","),
            Column("flips", align="right", format=","),
            Column("share", "of all", "%", "right", ".4f"),
        ],
        key="flips",
        notes=["Each layer fed with what the runtime itself made of the layers before it; integers and signs only."],
    )


@dataclass
class Runner:
    """One runtime under test."""

    runtime: Runtime
    name: str
    verdicts: Verdicts
    settings: Settings
    facts: dict[str, Value] = field(default_factory=dict)
    #: Per sample whether a sign, trit or level flipped on the way, once :meth:`count_flips` knows.
    flipped: Array | None = None

    def compare_layers(self, layers: Sequence[Layer], reference: Reference) -> None:
        """Every layer alone, fed the reference's own values."""
        known = [layer for layer in layers if layer.name in reference.nodes and _fed(layer, reference.values)]
        arrays: dict[str, Array] = {}  # equal objects are handed over once
        for layer in known:
            arrays |= {name: a for name, a in zip(layer.inputs, layer.feed(reference.values)) if name not in arrays}
        jobs: list[Job] = [(layer.model, [arrays[name] for name in layer.inputs]) for layer in known]
        results = self._run(jobs, known, f"{self.name} layer")
        by_model = reference.by_model
        for layer, outputs in zip(known, results):
            expected = reference.values[layer.name]
            found = outputs[0].reshape(expected.shape) if outputs[0].size == expected.size else outputs[0]
            compare_layer(self.name, reference.nodes[layer.name], found, by_model, self.verdicts)

    def count_flips(self, layers: Sequence[Layer], reference: Reference, table: Table) -> None:
        """The layers in a row, each fed what the runtime made of those before it; flips go into ``table``."""
        made: dict[str, Earlier] = {}
        given = {v.name: a[: reference.samples] for v, a in zip(reference.graph.inputs, reference.inputs)}
        first = {reference.renamed.get(name, name): a.astype(np.float32) for name, a in given.items()}
        jobs: list[Job] = []
        done: list[Layer] = []
        for layer in layers:
            if layer.name not in reference.nodes or not all(n in made or n in first for n in layer.inputs):
                continue
            jobs.append((layer.model, [made[n] if n in made else first[n] for n in layer.inputs]))
            made[layer.name] = Earlier(len(jobs) - 1, reference.values[layer.name].shape[1:])
            done.append(layer)
        results = self._run(jobs, done, f"{self.name}, layers in a row")
        if results and len(done) == sum(layer.name in reference.nodes for layer in layers):
            self.flipped = np.zeros(reference.samples, bool)
        for layer, outputs in zip(done, results):
            node, expected = reference.nodes[layer.name], reference.values[layer.name]
            if node.output.type.dtype.is_float:
                continue
            found = outputs[0]
            fits = found.size == expected.size  # a forged file may compute anything
            wrong = found.reshape(expected.shape) != expected if fits else np.ones(expected.shape, bool)
            if self.flipped is not None:
                self.flipped |= wrong.reshape(len(wrong), -1).any(1)
            if not node.output.type.dtype.is_packed:
                continue
            flips = int(wrong.sum())
            table.add(
                runtime=self.name,
                layer=layer_of(node),
                values=expected.size,
                flips=flips,
                share=100 * flips / expected.size,
            )

    def compare_whole(
        self,
        model: bytes | Path,
        reference: Reference,
        io: IODescription | None,
        *,
        integers: bool = False,
        ends: Ends | None = None,
    ) -> None:
        """The whole file: predictions and distance of every output.

        Args:
            model: the file.
            reference: inputs, and the outputs that they should give.
            io: the model's I/O description, where a cause is looked for.
            integers: the file computes in integers: another agreement is asked for.
            ends: how its inputs and outputs are encoded; None: as the reference's, float32.
        """

        def run(inputs: Sequence[Array]) -> list[Array]:
            given = [a.astype(np.float32) for a in inputs]
            found = self.runtime.run([(model, ends.encode(given) if ends else given)], timeout=self.settings.timeout)[0]
            return ends.decode(found) if ends else found

        def cause() -> str:
            if len(reference.inputs) != 1:
                return ""
            try:
                return cause_of_inputs(
                    lambda x: run([x])[0], reference.inputs[0][:_TRIED], reference.outputs[0][:_TRIED], io
                )
            except PeerError:
                return ""

        try:
            outputs = run(reference.inputs)
        except PeerError as error:
            self.verdicts.fail("end to end", self.name, error)
            return
        judged = not integers or self.settings.judge_integers
        if len(outputs) != len(reference.outputs):
            why = f"the file has {len(outputs)} outputs, the model {len(reference.outputs)}"
            self.verdicts.add("end to end", self.name, compared=1, different=1, why=why)
        for i, (found, expected) in enumerate(zip(outputs, reference.outputs)):
            what = self.name if len(reference.outputs) == 1 else f"{self.name}, output {i}"
            if found.size != expected.size:
                why = (
                    f"its shape is {'x'.join(map(str, found.shape))}, the model's {'x'.join(map(str, expected.shape))}"
                )
                self.verdicts.add("end to end", what, compared=expected.size, different=expected.size, why=why)
                continue
            least = self.settings.agreement(integers=integers)
            compare_top1(what, found, expected, self.verdicts, least=least, judged=judged, cause=cause)
            key = f"{self.name.lower().replace(' ', '_')}_largest_logit_distance" + (f"_{i}" if i else "")
            distances = np.abs(found.reshape(len(expected), -1) - expected.reshape(len(expected), -1)).max(1)
            self.facts[key] = float(distances.max(initial=0.0))
            terms = largest_term(reference.graph.outputs[i], reference.by_model) if reference.nodes else 0.0
            self._compare_quiet(what, distances, expected, terms)

    def _compare_quiet(self, what: str, distances: Array, expected: Array, terms: float) -> None:
        """Samples without a flip are judged by the distance of their outputs; ``terms``: the size of what these are sums of."""
        if self.flipped is None or self.flipped.all():
            return
        quiet = distances[: len(self.flipped)][~self.flipped]
        scale = float(np.abs(expected).max(initial=0.0))
        wrong = ~((quiet <= QUIET_TOLERANCE * scale) | (quiet <= TOLERANCE * terms))
        self.verdicts.add(
            "inputs without flips",
            what,
            compared=len(quiet),
            different=int(wrong.sum()),
            distance=float(quiet.max()),
            why=f"outputs differ by {quiet.max():.3g} where they reach {scale:.3g}, though no sign flipped on the way",
        )

    def _run(self, jobs: list[Job], layers: Sequence[Layer], check: str) -> list[list[Array]]:
        """Outputs of the jobs; of none where the runtime fails, which is entered into the verdicts."""
        if not jobs:
            return []
        try:
            return self.runtime.run(jobs, timeout=self.settings.timeout)
        except PeerError as error:
            at = error.job if error.job is not None and error.job < len(layers) else None
            self.verdicts.fail(check, layers[at].source or layers[at].name if at is not None else self.name, error)
            return []


def _fed(layer: Layer, values: Mapping[str, Array]) -> bool:
    return all(name in values for name in layer.inputs)
