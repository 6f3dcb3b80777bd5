"""The graph against the PyTorch module that it was imported from, value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bdnet_deploy.analysis.comparing.decoded import layer_of
from bdnet_deploy.analysis.comparing.layers import TOLERANCE, compare_top1, near_ties
from bdnet_deploy.analysis.comparing.verdicts import Verdicts
from bdnet_deploy.graph import Affine, Array, Dequantize, Node, Quantize, Sign, Ternarize, Value, evaluate
from bdnet_deploy.importers.torch import Imported
from bdnet_deploy.importers.torch.emitted import Emitted
from bdnet_deploy.importers.torch.layout import Layout, to_graph
from bdnet_deploy.importers.torch.trace import Trace, Traced, run_step

#: Float noise flips about one sign (or trit) in a million; where a larger share lies at the threshold, the rule for ties is wrong.
MOST_NEAR_TIES = 1e-3
#: Levels that PyTorch computes by straight-through code are blurred by rounding, by less than this.
_BLUR = 0.01
#: What no level is.
_NO_LEVEL = 127
#: An input of which no sign flipped has logits as near as this share of the largest one.
END_TOLERANCE = 1e-4


@dataclass
class _Sums:
    compared: int = 0
    different: int = 0
    near: int = 0
    distance: float = 0.0


def compare_import(imported: Imported, x: Array, verdicts: Verdicts) -> None:
    """Each value of the graph that PyTorch computes too, made by the graph from PyTorch's own values before it.

    Bits, trits and the levels of wider quantizers must be equal but for near ties, real values within 1e-5 of the layer's
    largest. End to end, one flip
    cascades: flips, distance and top-1 are reported, and an input without flips must agree within 1e-4.

    Args:
        imported: the graph and its record.
        x: samples as the graph takes them, (N, H, W, C) or (N, C).
        verdicts: where the comparisons go.
    """
    graph = imported.graph
    known = _known(imported)
    sums = {value: _Sums() for value in known if value.node is not None}
    logits, expected, quiet = [], [], []
    for sample in x:
        image = sample[None].astype(np.float32)
        tensors = _replay(imported.trace, _as_torch(image))
        values = {value: _as_graph(tensors[traced], e) for value, (traced, e) in known.items()}
        ends = evaluate(graph, [image], keep=True)
        flips = 0
        for value, total in sums.items():
            _compare(value, values, total)
            if value.type.dtype.is_packed:
                flips += int((ends[value.name] != values[value]).sum())
            elif _quantizer(value) is not None:
                flips += int((~_near(ends[value.name], values[value])).sum())
        logits.append(ends[graph.outputs[0].name][0])
        expected.append(to_graph(tensors[imported.trace.outputs[0]].numpy(), Layout.FIRST)[0])
        quiet.append(flips == 0)
    for value, total in sums.items():
        assert value.node is not None
        why = f"{total.different} of {total.compared} elements differ"
        if value.type.dtype.is_packed and total.near > max(MOST_NEAR_TIES * total.compared, 2):
            why = f"{total.near} of {total.compared} elements lie at the threshold, as zeros of sign(0), and differ"
            total.near, total.different = 0, total.different + total.near
        verdicts.add(
            "layer, fed PyTorch's values",
            f"{layer_of(value.node)}: {value.node.op.name}",
            compared=total.compared,
            different=total.different,
            near_ties=total.near,
            distance=total.distance if not value.type.dtype.is_packed else None,
            why=why,
        )
    _compare_ends(np.stack(logits), np.stack(expected), np.array(quiet), verdicts)


def _compare_ends(logits: Array, expected: Array, quiet: Array, verdicts: Verdicts) -> None:
    largest = max(float(np.abs(expected).max()), 1e-30)
    apart = np.abs(logits - expected).reshape(len(logits), -1).max(-1)
    wrong = quiet & ~(apart <= END_TOLERANCE * largest)
    verdicts.add(
        "end to end",
        "inputs without a flip",
        compared=int(quiet.sum()),
        different=int(wrong.sum()),
        distance=float(apart[quiet].max(initial=0.0)),
        why=f"outputs are {apart.max():.3g} apart where they reach {largest:.3g}",
    )
    compare_top1("all inputs, top-1", logits, expected, verdicts, judged=False)


def _known(imported: Imported) -> dict[Value, tuple[Traced, Emitted]]:
    """The graph's values that are tensors of the record, but for scale, offset and layout."""
    there = {value for node in imported.graph.nodes for value in (*node.inputs, node.output)}
    found: dict[Value, tuple[Traced, Emitted]] = {}
    for (traced, _), emitted in imported.emitted.items():
        if emitted.value in there and not emitted.padded and emitted.value not in found and emitted.scale().all():
            found[emitted.value] = (traced, emitted)
    return found


def _as_torch(image: Array) -> Tensor:
    """(1, C, H, W), in plain order: a view of one channel would make PyTorch take the memory for channels-last."""
    channels_first = np.moveaxis(image, -1, 1)
    return torch.from_numpy(channels_first.flatten()).reshape(channels_first.shape)


def _replay(trace: Trace, x: Tensor) -> dict[Traced, Tensor]:
    env = {trace.input: x}
    for step in trace.steps:
        run_step(step, env, lambda arg: env[arg] if isinstance(arg, Traced) else arg)
    return env


def _as_graph(tensor: Tensor, emitted: Emitted) -> Array:
    """PyTorch's tensor in the graph's terms: levels, or numbers in double."""
    x = to_graph(tensor.double().numpy(), emitted.layout).reshape(emitted.value.type.shape)
    if emitted.mul is not None or emitted.add is not None:
        x = (x - emitted.offset()) / emitted.scale()
    if not emitted.packed:
        return x
    level = np.rint(x)
    return np.where(np.abs(x - level) <= _BLUR, level, _NO_LEVEL).astype(np.int8)


def _compare(value: Value, values: Mapping[Value, Array], total: _Sums) -> None:
    local = dict(values)
    del local[value]
    for inner in _between(value, local):
        arrays = [v.data if v.data is not None else local[v] for v in inner.inputs]
        local[inner.output] = inner.op.reference([v.type for v in inner.inputs], arrays, inner.output.type)
    found, expected = local[value], values[value]
    total.compared += expected.size
    node = value.node
    assert node is not None
    if value.type.dtype.is_packed:
        wrong = found != expected
        near = np.zeros_like(wrong)
        if wrong.any() and isinstance(node.op, Sign | Ternarize):
            near = wrong & near_ties(node, {v.name: a for v, a in local.items()})
        total.near += int(near.sum())
        total.different += int((wrong & ~near).sum())
        return
    wrong = ~_near(found, expected)
    near = np.zeros_like(wrong)
    quantizer = _quantizer(value)
    if wrong.any() and quantizer is not None:
        near = wrong & near_ties(quantizer, {v.name: a for v, a in local.items()})
    total.near += int(near.sum())
    total.different += int((wrong & ~near).sum())
    distance = np.abs(found.astype(np.float64) - expected)[~near]
    total.distance = max(total.distance, float(distance.max(initial=0.0)) / _largest(expected))


def _largest(expected: Array) -> float:
    return max(float(np.abs(expected).max(initial=0.0)), 1e-30)


def _near(found: Array, expected: Array) -> Array:
    return np.asarray(np.abs(found.astype(np.float64) - expected) <= TOLERANCE * _largest(expected))


def _quantizer(value: Value) -> Node | None:
    """The quantizer whose levels, times a factor and with an offset perhaps, the value has."""
    node = value.node
    while node is not None and isinstance(node.op, Dequantize | Affine) and getattr(node.op, "terms", 1) == 1:
        node = node.inputs[0].node
    return node if node is not None and isinstance(node.op, Quantize) else None


def _between(value: Value, known: Mapping[Value, Array]) -> Iterator[Node]:
    """The nodes that make ``value`` from known values, in order."""
    order: list[Node] = []
    stack, seen = [value], set()
    while stack:
        current = stack[-1]
        node = current.node
        if current in seen or node is None:
            stack.pop()
            continue
        missing = [v for v in node.inputs if v.data is None and v not in known and v not in seen]
        if missing:
            stack.extend(missing)
            continue
        seen.add(current)
        order.append(node)
        stack.pop()
    return iter(order)
