"""The int8 model, operator by operator."""

from __future__ import annotations

import dataclasses

import numpy as np

from bdnet_deploy.export.tflite import extended
from bdnet_deploy.export.tflite.int8 import constants
from bdnet_deploy.export.tflite.int8.choice import HIGH, LOW, SAME_LEVELS, Choice, Levels
from bdnet_deploy.export.tflite.int8.reading import Reading
from bdnet_deploy.export.tflite.int8.uniform import with_one_scale
from bdnet_deploy.export.tflite.schema import ABSENT, Array, Model, Operator, Signature, Tensor, TensorKind

#: Versions of the operators that take int8, where they are not 2.
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "PRELU": 1, "RESHAPE": 1, "QUANTIZE": 1}


def rewrite(model: Model, choice: Choice) -> Model:
    """A new model in which the chosen operators are int8."""
    return _Rewriting(model, choice).result()


class _Rewriting:
    def __init__(self, model: Model, choice: Choice) -> None:
        self.old, self.choice, self.reading = model, choice, Reading(model)
        self.new = Model(metadata=dict(model.metadata), description=model.description)
        #: New tensors of old ones: as they were (float32, packed words, shapes), and as int8 with its levels.
        self.plain: dict[int, int] = {}
        self.int8: dict[int, tuple[int, Levels]] = {}
        self.names: set[str] = {t.name for t in model.tensors if t.data is None}

    def result(self) -> Model:
        self.new.inputs = [self._plain(i) for i in self.old.inputs]
        for op in self.old.operators:
            self._operator(op)
        self.new.outputs = [self._float(i) for i in self.old.outputs]
        self.new.signatures = [
            Signature(s.key, *({n: self.plain[i] for n, i in names.items()} for names in (s.inputs, s.outputs)))
            for s in self.old.signatures
        ]
        return self.new

    # -- tensors ----------------------------------------------------------------------------------------------------

    def _add(self, tensor: Tensor) -> int:
        self.new.tensors.append(tensor)
        return len(self.new.tensors) - 1

    def _unique(self, name: str) -> str:
        candidate, n = name, 0
        while candidate in self.names:
            n += 1
            candidate = f"{name}.{n}"
        self.names.add(candidate)
        return candidate

    def _plain(self, index: int) -> int:
        """The new tensor for an old one that stays what it is."""
        if index == ABSENT:
            return ABSENT
        if index not in self.plain:
            old = self.old.tensors[index]
            name = old.name if old.data is None else self._unique(old.name)
            self.plain[index] = self._add(with_one_scale(dataclasses.replace(old, name=name)))
        return self.plain[index]

    def _float(self, index: int) -> int:
        """An old float32 tensor as float32."""
        if index in self.plain or index not in self.int8:
            return self._plain(index)
        tensor, _ = self.int8[index]
        old = self.old.tensors[index]
        keeps = self.reading.is_output(index)
        output = self._add(dataclasses.replace(old, name=old.name if keeps else self._unique(f"{old.name}/f32")))
        self._emit("DEQUANTIZE", (tensor,), output)
        self.plain[index] = output
        return output

    def _any(self, index: int) -> int:
        return self._float(index) if self.reading.is_float(index) else self._plain(index)

    def _levels(self, index: int) -> Levels:
        return self.int8[index][1] if index in self.int8 else self.choice.levels[index]

    def _quantized(self, index: int, levels: Levels | None = None) -> int:
        """An old float32 tensor as int8, in given levels."""
        if index not in self.int8:
            chosen = self.choice.levels[index]
            source = self._plain(index)
            tensor = self._new_int8(self._unique(f"{self.old.tensors[index].name}/i8"), index, chosen)
            self._emit("QUANTIZE", (source,), tensor)
            self.int8[index] = (tensor, chosen)
        tensor, current = self.int8[index]
        if levels is None or levels == current:
            return tensor
        moved = self._new_int8(self._unique(f"{self.old.tensors[index].name}/i8"), index, levels)
        return self._emit("QUANTIZE", (tensor,), moved)

    def _new_int8(self, name: str, index: int, levels: Levels) -> int:
        shape = self.old.tensors[index].shape
        return self._add(
            Tensor(name, shape, TensorKind.INT8, scale=_vector(levels.scale), zero_point=_zero(levels.zero))
        )

    def _result(self, index: int, levels: Levels) -> int:
        """The int8 tensor that an operator fills in place of an old float32 one; it has the name, outputs aside."""
        name = self.old.tensors[index].name
        tensor = self._new_int8(self._unique(f"{name}/i8") if self.reading.is_output(index) else name, index, levels)
        self.int8[index] = (tensor, levels)
        return tensor

    def _constant(self, name: str, data: Array, scale: Array, axis: int = 0, zero: int = 0) -> int:
        kind = TensorKind.INT8 if data.dtype == np.int8 else TensorKind.INT32
        return self._add(with_one_scale(Tensor(self._unique(name), data.shape, kind, data, scale, axis, _zero(zero))))

    def _emit(self, name: str, inputs: tuple[int, ...], output: int, **options: object) -> int:
        self.new.operators.append(Operator(name, inputs, (output,), dict(options), version=_VERSIONS.get(name, 2)))
        return output

    # -- operators --------------------------------------------------------------------------------------------------

    def _operator(self, op: Operator) -> None:
        if op not in self.choice:
            if op.name == "LceQuantize" and op.inputs[0] in self.int8:
                inputs = [self.int8[op.inputs[0]][0]]
            else:
                inputs = [self._any(i) for i in op.inputs]
            self._copy(op, tuple(inputs), tuple(self._plain(i) for i in op.outputs))
        elif op.name == "DEQUANTIZE":
            self.int8[op.outputs[0]] = (self._plain(op.inputs[0]), self.choice.levels[op.outputs[0]])
        elif op.name in ("LceBconv2d", "LceDequantize", extended.NAME):
            output = op.outputs[0]
            result = self._result(output, self.choice.levels[output])
            self._copy(op, tuple(self._plain(i) for i in op.inputs), (result,))
        elif self.reading.is_product(op):
            self._product(op)
        elif op.name in ("ADD", "SUB") and self._decides(op):
            self._shift(op)
        else:
            self._elements(op)

    def _copy(self, op: Operator, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        self.new.operators.append(dataclasses.replace(op, inputs=inputs, outputs=outputs, options=dict(op.options)))

    def _decides(self, op: Operator) -> bool:
        found = self.reading.with_constant(op)
        return found is not None and not op.options.get("activation") and self.reading.decides_signs_only(op.outputs[0])

    def _shift(self, op: Operator) -> None:
        """The sum with a constant, of which only the sign is read: exact."""
        found = self.reading.with_constant(op)
        assert found is not None
        x, addend = found
        source = self._quantized(x)
        data, levels = constants.shift_levels(addend if op.name == "ADD" else -addend, self._levels(x))
        name = self.old.tensors[op.outputs[0]].name
        constant = self._constant(f"{name}/shift", data, _vector(levels.scale), zero=levels.zero)
        output = self._result(op.outputs[0], Levels(self._levels(x).scale, 0))
        self._emit("ADD", (source, constant), output, pot_scale_int16=0)

    def _product(self, op: Operator) -> None:
        """A convolution or linear layer."""
        x, output = op.inputs[0], op.outputs[0]
        source = self._quantized(x)
        old_weights = self.old.tensors[op.inputs[1]]
        assert old_weights.data is not None
        axis = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}.get(op.name)
        bias = self.reading.data(op.inputs[2]) if len(op.inputs) > 2 else None
        scale = self._levels(x).scale
        data, scales = constants.weights(old_weights.data, axis, bias, scale)
        weights = self._constant(old_weights.name, data, scales, axis or 0)
        units = scale * scales.astype(np.float64)
        signs = self.reading.decides_signs_only(output)
        if bias is None:
            bias = np.zeros(old_weights.shape[axis or 0], np.float32)
        content = constants.bias_levels(bias, units, sign_only=signs)
        shift = self._constant(f"{self.old.tensors[output].name}/bias", content, units.astype(np.float32))
        levels = self.choice.levels[output]
        if signs:
            levels = _sign_levels(data, axis, content, units)
        self._emit(op.name, (source, weights, shift), self._result(output, levels), **op.options)

    def _elements(self, op: Operator) -> None:
        """Operators on elements; constants of real numbers become int8."""
        output = self.choice.levels[op.outputs[0]]
        same = op.name in SAME_LEVELS
        inputs = []
        for index in op.inputs:
            data = self.reading.data(index)
            if index == ABSENT or not self.reading.is_float(index):
                inputs.append(self._plain(index))
            elif data is None:
                inputs.append(self._quantized(index, output if same else None))
            else:
                levels = output if same else Levels.of(float(data.min()), float(data.max()))
                name = self.old.tensors[index].name
                content = constants.levels_of(data, levels)
                inputs.append(self._constant(name, content, _vector(levels.scale), zero=levels.zero))
        if op.name in ("ADD", "SUB"):
            # TensorFlow Lite's factor for the sum must lie below 1.
            largest = max(float(np.asarray(self.new.tensors[i].scale)[0]) for i in inputs)
            if output.scale < largest / (1 << 18):
                output = Levels(float(np.float32(largest / (1 << 18))), output.zero)
        self._emit(op.name, tuple(inputs), self._result(op.outputs[0], output), **op.options)


def _sign_levels(weights: Array, axis: int | None, bias: Array, units: Array) -> Levels:
    """Levels as fine as the finest accumulator's unit where 32 bits allow it, zero in the middle."""
    others = tuple(i for i in range(weights.ndim) if i != (axis or 0))
    sums = np.abs(weights.astype(np.int64)).sum(others) * (HIGH - LOW) + np.abs(bias.astype(np.int64))
    room = (1 << 30) / np.maximum(sums, 1)
    # The accumulator times unit / scale must stay below 2**30 for every channel.
    scale = max(float(units.min()), float((units / room).max()))
    return Levels(float(np.float32(scale)), 0)


def _vector(scale: float) -> Array:
    return np.array([scale], np.float32)


def _zero(zero: int) -> Array | None:
    return np.array([zero], np.int64) if zero else None
