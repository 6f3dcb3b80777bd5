"""What is said about an int8 file: forms of the layers, kinds of its bytes, and which values it still has."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bdnet_deploy.export.foreign import LayerForm
from bdnet_deploy.export.tflite.forms import INT8, REAL, Forms
from bdnet_deploy.export.tflite.int8.reading import PRODUCTS
from bdnet_deploy.export.tflite.schema import Model, TensorKind


def account(forms: Forms, before: Model, after: Model) -> Forms:
    """The forms of the float file, for the int8 one."""
    kinds = {before.tensors[i].name: kind for i, kind in forms.kinds.items()}
    result = Forms()
    result.layers = [_form(layer) for layer in forms.layers]
    result.kinds = {i: kinds[t.name] for i, t in enumerate(after.tensors) if t.name in kinds}
    for op in after.operators:
        if op.name in PRODUCTS and result.kinds.get(op.inputs[1], REAL) == REAL:
            result.kinds[op.inputs[1]] = INT8
    return result


def _form(form: LayerForm) -> LayerForm:
    """Float convolutions and linear layers are int8, weights a byte each."""
    if form.op not in ("conv2d", "linear") or "float" not in form.macs:
        return form
    macs = {kind: n for kind, n in form.macs.items() if kind != "float"}
    macs["int8"] = macs.get("int8", 0) + form.macs["float"]
    recipe = form.recipe.removeprefix("float ")
    recipe = recipe if recipe.startswith("int8 ") else f"int8 {recipe}"
    return dataclasses.replace(form, recipe=recipe, macs=macs, weight_bytes=form.weight_bytes // 4)


def remaining(values: Sequence[dict[str, Any]], model: Model) -> list[list[Any]]:
    """[name, tensors, layer] of the values whose tensors are in the model; 0 for a name that is that of the first tensor, and
    for a layer that is called as the value."""
    number = {t.name: i for i, t in enumerate(model.tensors) if t.data is None and t.kind in (*_REAL, TensorKind.INT32)}
    return [
        [
            0 if v["name"] == v["tensors"][0] else v["name"],
            [number[t] for t in v["tensors"]],
            0 if v["source"] == v["name"] else v["source"],
        ]
        for v in values
        if number.keys() >= set(v["tensors"])
    ]


_REAL = (TensorKind.FLOAT32, TensorKind.INT8)
