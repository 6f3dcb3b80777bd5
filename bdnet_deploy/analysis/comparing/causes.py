"""Likely causes of differences between decoded graphs: each is a hypothesis that was tried and fits every element.

Where none fits, the answer is empty: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bdnet_deploy.graph import Affine, Array, Conv2d, Linear, Node, Sign, Ternarize

#: So few wrong elements, all others being equal, are an edit or damage and no other training.
FEW = 8
#: What they say.
EDITED = "single values differ and all others of the layer are equal: a damaged or edited file"
#: A fitted epsilon must explain every channel this well.
_EPSILON_FIT = 0.02


def of_structure(nodes: int, missing: int, extra: int) -> str:
    """Operators are missing from the file."""
    if missing > nodes // 2:
        return "it is an export of another network"
    return "it is an export of another network or of another version of this one" if extra or missing else ""


def of_attributes(node: Node, twin: Node, names: Sequence[str]) -> str:
    """Two operators of one kind with different attributes."""
    a, b = node.op, twin.op
    if isinstance(a, Conv2d) and isinstance(b, Conv2d):
        if list(names) == ["padding"]:
            (t, bo, le, r), (t2, bo2, le2, r2) = a.padding, b.padding
            if (t + bo, le + r) == (t2 + bo2, le2 + r2):
                return (
                    "padding alignment: the same amount on other sides, as between PyTorch (both sides alike) and "
                    "TensorFlow's SAME (the rest at bottom and right)"
                )
            return "padding: another amount at the border"
        if list(names) == ["pad_value"]:
            return f"padding with {b.pad_value} instead of {a.pad_value}"
    return "it is an export of another network or of another version of this one"


def of_constant(node: Node, i: int, found: Array, expected: Array, wrong: Array, module: object) -> str:
    """Constant number ``i`` of a node; ``wrong`` marks what differs."""
    if isinstance(node.op, Conv2d | Linear) and i == 1:
        return _first_that_fits(_weight_hypotheses(found, expected), found) or _by_share(wrong, expected)
    if isinstance(node.op, Sign | Ternarize):
        tie = _tie_rule(found, expected, wrong)
        if tie:
            return tie
    if isinstance(node.op, Affine):
        epsilon = _epsilon(node, i, found, expected, module)
        if epsilon:
            return epsilon
    return _first_that_fits(_parameter_hypotheses(found, expected), found) or _rounding(found, expected, wrong)


Hypothesis = tuple[str, Callable[[], Array]]


def _first_that_fits(hypotheses: Iterator[Hypothesis], found: Array) -> str:
    for text, make in hypotheses:
        candidate = make()
        if candidate.shape == found.shape and np.array_equal(candidate, found):
            return text
    return ""


# -- weights ----------------------------------------------------------------------------------------------------------------


def _weight_hypotheses(found: Array, w: Array) -> Iterator[Hypothesis]:
    yield "all weights are negated", lambda: -w
    if w.ndim == 4:
        oihw = w.transpose(0, 3, 1, 2)
        yield "an NCHW/NHWC swap: the weights lie in the order of the other layout", lambda: oihw.reshape(w.shape)
        yield (
            "the kernels are turned by 180 degrees: a convolution where the model has a cross-correlation",
            lambda: w[:, ::-1, ::-1],
        )
        if w.shape[1] == w.shape[2]:
            yield "rows and columns of the kernels are swapped", lambda: w.transpose(0, 2, 1, 3)
        if w.shape[3] == 3:
            yield "the input channels are in the reverse order (RGB and BGR)", lambda: w[..., ::-1]
    axes = w.reshape(len(w), -1)
    signs = np.where((found.reshape(axes.shape) == -axes).all(1) & ~(found.reshape(axes.shape) == axes).all(1), -1, 1)
    negated = int((signs < 0).sum())
    yield (
        f"{negated} of {len(w)} filters are negated, the others are equal: the sign of their scale was folded otherwise",
        lambda: (axes * signs[:, None]).reshape(w.shape),
    )
    for axis, text in (
        (
            w.ndim - 1,
            "the same weights with the input channels in another order (an NCHW/NHWC swap before this layer?)",
        ),
        (0, "the same filters in another order"),
    ):
        order = permutation(found, w, axis)
        if order is not None:
            yield text, lambda order=order, axis=axis: np.take(w, order, axis)  # type: ignore[misc]


def permutation(found: Array, expected: Array, axis: int) -> Array | None:
    """The order in which the slices of ``expected`` along an axis are those of ``found``, if they are."""
    slices: dict[bytes, list[int]] = {}
    for i in range(expected.shape[axis]):
        slices.setdefault(np.ascontiguousarray(np.take(expected, i, axis)).tobytes(), []).append(i)
    order = []
    for i in range(found.shape[axis]):
        same = slices.get(np.ascontiguousarray(np.take(found, i, axis).astype(expected.dtype)).tobytes())
        if not same:
            return None
        order.append(same.pop(0))
    return np.array(order)


def _by_share(wrong: Array, expected: Array) -> str:
    count = int(wrong.sum())
    if count <= min(FEW, wrong.size // 8):
        return EDITED
    if set(np.unique(expected)) <= {-1, 1} and 0.3 <= count / wrong.size <= 0.7:
        return "about half of the signs differ: weights of another training"
    if count > wrong.size // 2:
        return "most weights of the layer differ: weights of another training"
    return ""


# -- parameters -------------------------------------------------------------------------------------------------------------


def _tie_rule(found: Array, expected: Array, wrong: Array) -> str:
    """Thresholds that are all the next number, or all the one before."""
    if expected.dtype.kind == "f":
        above, below = np.nextafter(expected, np.inf), np.nextafter(expected, -np.inf)
        above, below = above.astype(expected.dtype), below.astype(expected.dtype)
    else:
        above, below = expected + 1, expected - 1
    if wrong.sum() < 2:
        return ""
    if (found[wrong] == above[wrong]).all():
        return "tie rule: each of these thresholds is the next larger number, so equality gives the lower level (> and not >=)"
    if (found[wrong] == below[wrong]).all():
        return "tie rule: each of these thresholds is the next smaller number"
    return ""


def _parameter_hypotheses(found: Array, expected: Array) -> Iterator[Hypothesis]:
    order = permutation(found, expected, expected.ndim - 1) if expected.size else None
    if order is not None and found.size > 1:
        text = "the same numbers in another order of channels"
        yield text, lambda: np.take(expected, order, expected.ndim - 1)
    yield "all of them are negated", lambda: -expected
    with np.errstate(all="ignore"):
        ratios = found[expected != 0].astype(np.float64) / expected[expected != 0]
    if ratios.size > 1 and np.isfinite(ratios).all() and np.ptp(ratios) <= 1e-6 * abs(ratios[0]):
        factor = float(np.median(ratios))
        if abs(factor - 1) > 1e-5 and (found[expected == 0] == 0).all():
            yield f"wrong scaling: all of them are the model's times {factor:.6g}", lambda: found


def _rounding(found: Array, expected: Array, wrong: Array) -> str:
    count = int(wrong.sum())
    if expected.dtype.kind == "f" and count > 1 and np.isfinite(found).all():
        with np.errstate(all="ignore"):
            spacing = np.spacing(np.maximum(np.abs(found), np.abs(expected)).astype(np.float32)).astype(np.float64)
            ulps = float((np.abs(found.astype(np.float64) - expected) / spacing).max())
        if ulps <= 4:
            return f"rounding: they differ by at most {ulps:.0f} units in the last place; constants merged in another order"
    if count <= min(FEW, max(1, wrong.size // 8)):
        return EDITED
    return ""


def _epsilon(node: Node, i: int, found: Array, expected: Array, module: object) -> str:
    """Whether one other epsilon in a batch normalization of the model gives all of these factors.

    factor = gamma / sqrt(variance + epsilon) and what multiplies it, so the squared ratio of two gives the other epsilon.
    """
    assert isinstance(node.op, Affine)
    if module is None or not node.op.terms <= i < 2 * node.op.terms or found.size < 4:
        return ""
    with np.errstate(all="ignore"):
        squared = (expected.astype(np.float64) / found) ** 2
    if not np.isfinite(squared).all():
        return ""
    for name, layer in module.named_modules():  # type: ignore[attr-defined]
        variance, epsilon = getattr(layer, "running_var", None), getattr(layer, "eps", None)
        if variance is None or epsilon is None or variance.numel() != found.size:
            continue
        var = variance.detach().double().cpu().numpy()
        others = squared * (var + epsilon) - var
        other = float(np.median(others))
        room = _EPSILON_FIT * abs(other) + 1e-6 * (var + epsilon)
        clear = np.abs(squared - 1) > 1e-6
        if (
            other > 0
            and abs(other / epsilon - 1) > 0.1
            and clear.mean() > 0.5
            and (np.abs(others - other) <= room).all()
        ):
            return (
                f"batch normalization '{name}' with epsilon {other:.3g}: that explains the factors of all {found.size} "
                f"channels; the model has {epsilon:g}"
            )
    return ""
