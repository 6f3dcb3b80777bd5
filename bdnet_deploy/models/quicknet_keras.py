"""QuickNet's weights under the names and in the layouts of Keras, which Larq Zoo publishes."""

from __future__ import annotations

import re
from collections import defaultdict

from bdnet_deploy.models.published import Array, Shapes, State

_LAYERS = "quant_conv2d|quant_depthwise_conv2d|depthwise_conv2d|batch_normalization|quant_dense"
# Keras numbers the layers of a kind in the order in which a process makes them; a weight file has the layer's name
# once more as a folder.
_NAME = re.compile(rf"(?:.*/)?({_LAYERS})(?:_(\d+))?/(\w+?)(?::0)?")
_OURS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def from_keras(state: State, shapes: Shapes) -> dict[str, Array] | None:
    """A :data:`~bdnet_deploy.models.published.Translation` of ``{w.name: w.numpy() for w in model.weights}``.

    The k-th layer of a kind is ours of that kind; kernels are HWIO there, OIHW here.
    """
    parsed = {name: _NAME.fullmatch(name) for name in state}
    numbers: dict[str, set[int]] = defaultdict(set)
    for match in parsed.values():
        if match is None:
            return None
        numbers[match[1]].add(int(match[2] or 0))
    ours = _our_layers(shapes)
    result: dict[str, Array] = {}
    for name, match in parsed.items():
        assert match is not None
        layers = ours[match[1]]
        k = sorted(numbers[match[1]]).index(int(match[2] or 0))
        key = f"{layers[k]}.{_OURS.get(match[3], 'weight')}" if k < len(layers) else name
        if match[1] == "quant_dense" and match[3] == "bias" and k < len(layers):
            key = f"{layers[k]}.bias"
        if key in result:
            return None
        result[key] = _in_our_order(match[1], state[name])
    return result


def _our_layers(shapes: Shapes) -> dict[str, list[str]]:
    """Kind of layer in Keras to the paths of our layers of that kind, in the order of the data flow."""
    layers: dict[str, list[str]] = {kind: [] for kind in _LAYERS.split("|")}
    for name, shape in shapes.items():
        path, _, what = name.rpartition(".")
        if what == "running_mean":
            layers["batch_normalization"].append(path)
        elif what == "weight" and len(shape) == 2:
            layers["quant_dense"].append(path)
        elif what == "weight" and len(shape) == 4:
            kind = {"depthwise": "quant_depthwise_conv2d", "blur": "depthwise_conv2d"}
            layers[kind.get(path.rpartition(".")[2], "quant_conv2d")].append(path)
    return layers


def _in_our_order(kind: str, array: Array) -> Array:
    if array.ndim == 4:
        # Depth-wise kernels are (kh, kw, C, 1), the others (kh, kw, I, O).
        return array.transpose((2, 3, 0, 1) if "depthwise" in kind else (3, 2, 0, 1))
    return array.T if array.ndim == 2 else array
