"""``verify``: does an exported file say what the model says?

Decoded parameters first, then every layer in isolation, fed the reference's own inputs, then end to end. Integers, signs
and trits must be equal except where the value that was compared lies within a few units in the last place of the
threshold (near ties, counted); fixed-point files and ours must be equal byte for byte. End to end, a near tie that flips
cascades, so flips, logit distance and top-1 agreement are reported and only top-1 is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.errors import MismatchError, ModelFileError, UsageError
from bdnet_deploy.graph import Affine, Array, Conv2d, Graph, Linear, Node, Sign, Ternarize, Value, evaluate
from bdnet_deploy.lowering import Lowered
from bdnet_deploy.passes import random_inputs
from bdnet_deploy.report import Column, Report, Table

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike
    from bdnet_deploy.samples import Samples

#: Real outputs of a foreign runtime may differ by this share of the layer's largest value.
TOLERANCE = 1e-5
#: A sign may differ where the compared value is within this many units in the last place of the largest addend.
NEAR_TIE_ULPS = 4
#: Share of top-1 predictions that must agree with the reference end to end.
MIN_AGREEMENT = 0.99


class VerifyError(MismatchError):
    """The artifact differs; ``report`` has every comparison."""

    def __init__(self, report: Report, what: str, *, where: str, why: str | None, fix: str | None = None) -> None:
        super().__init__(what, where=where, why=why, fix=fix)
        self.report = report


@dataclass
class _Verdicts:
    """Comparisons in order; the first difference is the one to look at."""

    table: Table = field(
        default_factory=lambda: Table(
            "comparisons",
            [
                Column("check"),
                Column("layer"),
                Column("result"),
                Column("compared", align="right", format=","),
                Column("different", align="right", format=","),
                Column("near_ties", "near ties", align="right", format=","),
                Column("distance", "largest distance", align="right", format=".3g"),
            ],
        )
    )
    first: tuple[str, str, str] | None = None

    def add(
        self,
        check: str,
        layer: str,
        *,
        compared: int,
        different: int,
        near_ties: int = 0,
        distance: float | None = None,
        why: str = "",
    ) -> None:
        self.table.add(
            check=check,
            layer=layer,
            result="differs" if different else "equal" if not near_ties else "equal but near ties",
            compared=compared,
            different=different,
            near_ties=near_ties or None,
            distance=distance,
        )
        if different and self.first is None:
            self.first = (check, layer, why)


def verify(model: Model, artifact: Path, *, inputs: PathLike | Array | Samples | None = None, limit: int = 20) -> Report:
    """See :meth:`bdnet_deploy.model.Model.verify`."""
    if not artifact.exists():
        raise ModelFileError("there is no such file", where=str(artifact))
    kinds = {".tflite": _verify_foreign, ".onnx": _verify_foreign, ".bdn": _verify_bdn, ".c": _verify_bdn}
    check = kinds.get(artifact.suffix.lower())
    if check is None:
        raise UsageError(f"'{artifact.suffix}' files cannot be verified", where=str(artifact),
                         fix=f"verify {', '.join(kinds)} files")  # fmt: skip
    x = random_inputs(model.graph, samples=min(limit, 8))[0] if inputs is None else model.samples(inputs, limit=limit).x
    verdicts = _Verdicts()
    facts = {"model": model.name, "artifact": artifact.name, "samples": len(x)}
    try:
        facts.update(check(model, artifact, x, verdicts))
    except ModelFileError as error:
        error.where = error.where or str(artifact)
        raise
    facts["verdict"] = "equal" if verdicts.first is None else "differs"
    report = Report("verify", facts, [verdicts.table])
    if verdicts.first is not None:
        check_name, layer, why = verdicts.first
        raise VerifyError(
            report,
            f"{artifact.name} differs from the model in layer '{layer}' ({check_name})",
            where=str(artifact),
            why=why or None,
            fix=f"export it again: bdnet-deploy export {model.source or 'MODEL'} --target {artifact.suffix[1:]}",
        )
    return report


def _compare_weights(graph: Graph, decoded: Mapping[str, Array], verdicts: _Verdicts) -> None:
    """Weights of every convolution and linear layer, element by element."""
    for node in graph.nodes:
        if not isinstance(node.op, Conv2d | Linear):
            continue
        expected = node.inputs[1].data
        found = decoded.get(node.name)
        assert expected is not None
        layer = node.source or node.name
        if found is None or found.size != expected.size:
            verdicts.add("weights", layer, compared=expected.size, different=expected.size, why="they are missing")
            continue
        wrong = np.argwhere(found.reshape(expected.shape).astype(expected.dtype) != expected)
        why = ""
        if len(wrong):
            place = tuple(int(i) for i in wrong[0])
            why = (
                f"weight {place} (output, row, column, input) is {found.reshape(expected.shape)[place]}, "
                f"the model has {expected[place]}; a damaged or edited file, or an export of other weights"
            )
        verdicts.add("weights", layer, compared=expected.size, different=len(wrong), why=why)


def _compare_parameters(graph: Graph, decoded: Mapping[str, Array], verdicts: _Verdicts) -> None:
    """Affine factors, slopes and thresholds that the file stores as the graph has them."""
    for node in graph.nodes:
        compared = different = 0
        worst: str = ""
        for value in node.inputs[1:]:
            if value.name not in decoded or value.data is None:
                continue
            expected, found = value.data, np.asarray(decoded[value.name])
            with np.errstate(invalid="ignore"):
                wrong = ~np.isclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-6, atol=0.0)
            wrong &= ~((np.abs(expected) > 2**24) & (np.sign(found) == np.sign(expected)))  # clipped thresholds
            compared += expected.size
            different += int(wrong.sum())
            if wrong.any() and not worst:
                channel = int(np.argmax(wrong))
                worst = f"{value.name}[{channel}] is {found[channel]}, the model has {expected[channel]}"
        if compared:
            verdicts.add("parameters", node.source or node.name, compared=compared, different=different, why=worst)


# -- foreign runtimes ---------------------------------------------------------------------------------------------------


def _verify_foreign(model: Model, artifact: Path, x: Array, verdicts: _Verdicts) -> dict[str, object]:
    """A ``.tflite`` in stock Larq Compute Engine (both modes) or an ``.onnx`` in onnxruntime."""
    from bdnet_deploy.importers import onnx as onnx_reader
    from bdnet_deploy.importers import tflite as tflite_reader

    tflite = artifact.suffix.lower() == ".tflite"
    reader = tflite_reader if tflite else onnx_reader
    graph = model.lowered("float").graph
    data = artifact.read_bytes()
    _compare_weights(graph, reader.read_weights(data), verdicts)
    _compare_parameters(graph, reader.read_parameters(data), verdicts)
    if tflite:
        from bdnet_deploy.peers import lce

        modes = ("default", "indirect")
        runtimes = {f"LCE {mode}": (lambda jobs, m=mode: lce.run_many(jobs, mode=m)) for mode in modes}
    else:
        from bdnet_deploy.peers import onnxruntime

        runtimes = {"onnxruntime": lambda jobs: [onnxruntime.run(m, i) for m, i in jobs]}
    layers = reader.split_layers(data)
    values = evaluate(graph, [x], keep=True)
    nodes = {node.output.name: node for node in graph.nodes}
    reference = values[graph.outputs[0].name]
    flips: dict[str, object] = {}
    for name, run in runtimes.items():
        results = run([(layer.model, layer.feed(values)) for layer in layers])
        for layer, outputs in zip(layers, results, strict=True):
            found = outputs[0].reshape(values[layer.name].shape)
            _compare_layer(name, nodes[layer.name], found, values, verdicts, layer.nodes)
        logits = run([(data, x)])[0][0].reshape(reference.shape)
        _compare_ends(name, logits, reference, verdicts)
        flips[f"{name}: largest logit distance"] = float(np.abs(logits - reference).max())
    torch_logits = _torch_logits(model, x)
    if torch_logits is not None:
        _compare_ends("reference against PyTorch", reference, torch_logits, verdicts)
    return flips


def _compare_layer(
    runtime: str, node: Node, found: Array, values: Mapping[str, Array], verdicts: _Verdicts, covered: tuple[str, ...]
) -> None:
    """One layer that was fed the reference's own inputs."""
    expected = values[node.name]
    layer = f"{node.source or node.name}: {node.op.name}"
    if node.output.type.dtype.is_float:
        scale = float(np.abs(expected).max(initial=0.0))
        distance = np.abs(found.astype(np.float64) - expected)
        wrong = ~(distance <= TOLERANCE * max(scale, 1e-30))
        verdicts.add(
            f"{runtime} layer",
            layer,
            compared=expected.size,
            different=int(wrong.sum()),
            distance=float(distance.max(initial=0.0)),
            why=f"largest distance {distance.max(initial=0.0):.3g} where values reach {scale:.3g}",
        )
        return
    wrong = found.astype(np.int64) != expected
    near = wrong & _near_ties(node, values) if isinstance(node.op, Sign | Ternarize) else np.zeros_like(wrong)
    why = ""
    if (wrong & ~near).any():
        place = tuple(int(i) for i in np.argwhere(wrong & ~near)[0])
        why = f"at {place} (sample, row, column, channel) it is {found[place]:g}, the reference has {expected[place]}"
    verdicts.add(
        f"{runtime} layer",
        layer,
        compared=expected.size,
        different=int((wrong & ~near).sum()),
        near_ties=int(near.sum()),
        why=why,
    )


def _near_ties(node: Node, values: Mapping[str, Array]) -> Array:
    """Where a real value lies so close to a threshold that another order of summation may flip the comparison."""
    source: Value = node.inputs[0]
    if not source.type.dtype.is_float:
        return np.zeros(values[node.name].shape, bool)
    x = values[source.name]
    largest = np.abs(x)
    producer = source.node
    if producer is not None and isinstance(producer.op, Affine):
        terms = producer.op.terms
        for term, factor in zip(producer.inputs[:terms], producer.inputs[terms:], strict=False):
            assert factor.data is not None
            largest = np.maximum(largest, np.abs(values[term.name] * factor.data))
    close = np.zeros(x.shape, bool)
    for threshold in node.inputs[1:]:
        assert threshold.data is not None
        addend = np.maximum(largest, np.abs(threshold.data)).astype(np.float32)
        close |= np.abs(x - threshold.data) <= NEAR_TIE_ULPS * np.spacing(addend)
    return close


def _compare_ends(name: str, found: Array, expected: Array, verdicts: _Verdicts) -> None:
    """Top-1 of whole runs. Near ties inside may flip and cascade: judged only when too many predictions change."""
    flips = int((found.argmax(-1) != expected.argmax(-1)).sum())
    allowed = int(np.ceil(len(expected) * (1 - MIN_AGREEMENT)))
    verdicts.add(
        "end to end",
        name,
        compared=len(expected),
        different=flips if flips > allowed else 0,
        near_ties=flips if flips <= allowed else 0,
        distance=float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)),
        why=f"{flips} of {len(expected)} predictions differ",
    )


def _torch_logits(model: Model, x: Array) -> Array | None:
    from bdnet_deploy.backends import TorchBackend

    try:
        return TorchBackend(model).predict(x)
    except UsageError:  # not from PyTorch
        return None


# -- our own files ------------------------------------------------------------------------------------------------------


def _verify_bdn(model: Model, artifact: Path, x: Array, verdicts: _Verdicts) -> dict[str, object]:
    """A ``.bdn`` (or the bytes in a ``.c``) in the host library."""
    from bdnet_deploy.bdn_reader import BdnReader

    file = BdnReader.open(artifact)
    lowered = model.lowered("float")
    if file.numerics == "float":
        return _verify_exact(model, file.data, lowered, x, verdicts)
    # The ranges of fixed point came from samples that are not here: weights are compared exactly, behaviour by top-1.
    fixed = model.lowered(file.numerics)
    _compare_weights(fixed.graph, file.weights(fixed.plan), verdicts)
    logits = file.predict(x)
    reference = evaluate(lowered.graph, [x])[lowered.graph.outputs[0].name]
    agree = float((logits.argmax(-1) == reference.argmax(-1)).mean())
    verdicts.add(
        "end to end",
        f"{file.numerics} against float",
        compared=len(x),
        different=0 if agree >= 0.9 else int(round((1 - agree) * len(x))),
        near_ties=int(round((1 - agree) * len(x))) if agree >= 0.9 else 0,
        distance=float(np.abs(logits - reference).max()),
        why=f"only {100 * agree:.1f} % of the predictions agree with float",
    )
    passed = file.self_test()
    verdicts.add("self-test", "recorded test vector", compared=1, different=0 if passed else 1, why="it fails")
    return {"numerics": file.numerics}


def _verify_exact(
    model: Model, data: bytes, lowered: Lowered, x: Array, verdicts: _Verdicts
) -> dict[str, object]:
    """Layer by layer and end to end, byte for byte against the numpy reference."""
    from bdnet_deploy.bdn_reader import BdnReader

    file = BdnReader(data)
    _compare_weights(lowered.graph, file.weights(lowered.plan), verdicts)
    encoded = lowered.encode(x)
    values = evaluate(lowered.graph, [encoded], keep=True)
    for name, node, found, expected in file.layers(lowered, encoded, values):
        different = int((found != expected).sum()) if found.dtype.kind != "f" else _different_bytes(found, expected)
        verdicts.add("host library layer", f"{name}: {node.op.name}", compared=expected.size, different=different,
                     why="the values differ")  # fmt: skip
    outputs = file.raw(encoded)
    expected = values[lowered.graph.outputs[0].name]
    verdicts.add(
        "end to end",
        "host library",
        compared=expected.size,
        different=_different_bytes(outputs.reshape(expected.shape), expected),
        why="the output's bytes differ",
    )
    torch_logits = _torch_logits(model, x)
    if torch_logits is not None:
        _compare_ends("reference against PyTorch", lowered.decode(expected), torch_logits, verdicts)
    return {"numerics": lowered.graph.numerics}


def _different_bytes(found: Array, expected: Array) -> int:
    """Elements whose bytes differ; -0.0 and 0.0 do, equal NaN do not."""
    pairs: Iterator[tuple[Array, Array]] = zip(
        np.ascontiguousarray(found, expected.dtype).reshape(-1), np.ascontiguousarray(expected).reshape(-1), strict=True
    )
    if found.astype(expected.dtype).tobytes() == expected.tobytes():
        return 0
    return sum(a.tobytes() != b.tobytes() for a, b in pairs)
