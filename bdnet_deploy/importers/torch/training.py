"""Layers whose weights are still on their way to two levels: what of the module says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from bdnet_deploy.graph import Graph

#: What quantizers that harden during training call the number that they harden by.
_TEMPERATURES = frozenset({"t", "tau", "temp", "temperature"})
#: Below it a clamp of w / temperature has two levels.
_HARD = 1e-6
_LEVELS = re.compile(r"weights have \d+ levels")


def explain_unfinished(graph: Graph, module: nn.Module) -> None:
    """Add to the reason of each layer with weights of many levels the temperature that its module holds.

    Where the activation is binary already, the layer is noted as unfinished: it was meant to be binary.
    """
    modules = dict(module.named_modules())
    for source, reason in graph.reasons.items():
        path = source.partition("#")[0]
        if not _LEVELS.search(reason):
            continue
        # What the model's own forward computes is called after its operator; there only its own numbers count.
        path = path if path in modules else ""
        found = next((t for t in _temperatures(modules[path], path) if t[2] > _HARD), None)
        if found is not None:
            kind, name, value = found
            graph.reasons[source] = f"{reason}; its {kind} '{name}' is {value:.4g}: training is not finished"
            if reason.startswith("weights"):
                graph.unfinished.add(source)


def _temperatures(module: nn.Module, path: str) -> Iterator[tuple[str, str, float]]:
    """Kind, name and value of the scalars of a module and of its parts (parametrizations, quantizers) so called."""
    parts, prefix = bool(path), f"{path}." if path else ""
    tensors = [("buffer", *named) for named in module.named_buffers(recurse=parts)]
    tensors += [("parameter", *named) for named in module.named_parameters(recurse=parts)]
    for kind, name, tensor in tensors:
        if name.rpartition(".")[2].lower() in _TEMPERATURES and tensor.numel() == 1:
            yield kind, f"{prefix}{name}", float(tensor)
    for name, value in vars(module).items():
        if name.lower() in _TEMPERATURES and isinstance(value, int | float) and not isinstance(value, bool):
            yield "attribute", f"{prefix}{name}", float(value)
