"""Questions about a model that several steps ask."""

from __future__ import annotations

from bdnet_deploy.export.tflite.schema import ABSENT, Array, Model, Operator, TensorKind

#: Convolutions and linear layers of float32.
PRODUCTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


class Reading:
    """Who computes and who reads the tensors of a model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.producer = {i: op for op in model.operators for i in op.outputs}
        self.readers: dict[int, list[Operator]] = {}
        for op in model.operators:
            for i in dict.fromkeys(op.inputs):
                self.readers.setdefault(i, []).append(op)

    def data(self, index: int) -> Array | None:
        """The content of a constant."""
        return None if index == ABSENT else self.model.tensors[index].data

    def is_float(self, index: int) -> bool:
        return index != ABSENT and self.model.tensors[index].kind is TensorKind.FLOAT32

    def is_output(self, index: int) -> bool:
        return index in self.model.outputs

    def is_product(self, op: Operator) -> bool:
        """A float32 convolution or linear layer of constant weights."""
        if op.name not in PRODUCTS or not self.is_float(op.inputs[0]) or self.data(op.inputs[1]) is None:
            return False
        return all(i == ABSENT or self.data(i) is not None for i in op.inputs[2:])

    def with_constant(self, op: Operator) -> tuple[int, Array] | None:
        """(computed input, constant) of a float operator of two terms, one of which is constant."""
        if op.name not in ("ADD", "SUB", "MUL") or len(op.inputs) != 2 or not self.is_float(op.outputs[0]):
            return None
        for x, c in (op.inputs, op.inputs[::-1]):
            data = self.data(c)
            if data is not None and self.data(x) is None and (op.name != "SUB" or c == op.inputs[1]):
                return x, data
        return None

    def decides_signs_only(self, index: int) -> bool:
        """Whether nothing but the sign of a tensor, perhaps after the sum with a constant, is ever read."""
        readers = self.readers.get(index, [])
        if self.is_output(index) or not readers:
            return False
        return all(
            r.name == "LceQuantize" or (self._shifts(r) and self.decides_signs_only(r.outputs[0])) for r in readers
        )

    def _shifts(self, op: Operator) -> bool:
        return op.name in ("ADD", "SUB") and not op.options.get("activation") and self.with_constant(op) is not None
