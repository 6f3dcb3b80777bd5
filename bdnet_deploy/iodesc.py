"""What goes into a model and what comes out: the description that travels with every artifact.

A raw sample is what a user holds: bytes of a camera, or floats. The description says how it becomes the float
tensor that the network was trained on. Wrong input scaling is the commonest deployment bug, so it is given
once and stored in every file. Without a description an input is float NHWC, used as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bdnet_deploy.errors import BdnetError, ModelFileError, UsageError, unknown_name
from bdnet_deploy.resample import center_crop, resize_bilinear

Array = npt.NDArray[Any]
_DTYPES: dict[str, np.dtype[Any]] = {"u8": np.dtype(np.uint8), "f32": np.dtype(np.float32)}
_LAYOUTS = ("NHWC", "NCHW")
_COLORS = ("gray", "rgb", "bgr")
_MAX_SIDE = 2**31 - 1


@dataclass(frozen=True)
class InputDescription:
    """One input.

    Attributes:
        name: its name.
        shape: as the model sees it, without the batch: (H, W, C), or fewer axes for signals and vectors.
        dtype: of the raw sample, ``"u8"`` or ``"f32"``.
        layout: of the raw sample, ``"NHWC"`` or ``"NCHW"``; what leaves :meth:`preprocess` is always NHWC.
        color: order of the channels that the model expects, ``"gray"``, ``"rgb"``, ``"bgr"``, or None when
            they are no colours. Whoever decodes an image file delivers this order; arrays are taken as they
            are.
        resize: first, resize an image of another size to (H, W), or its shorter side to one number.
        crop: then cut the middle (H, W) out.
        mean, std: per channel or one for all, in units of the raw values: x = (raw - mean) / std.
        scale, zero_point: instead of mean and std: x = (raw - zero_point) * scale.
    """

    name: str = "input"
    shape: tuple[int, ...] = ()
    dtype: str = "f32"
    layout: str = "NHWC"
    color: str | None = None
    resize: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    zero_point: float | None = None

    def __post_init__(self) -> None:
        """Normalise lists to tuples and numbers to their types; refuse what does not fit.

        Raises:
            UsageError: a value of the wrong type or range, or values that contradict each other.
        """
        put = object.__setattr__
        if not isinstance(self.name, str) or not self.name:
            raise UsageError("an input needs a name")
        put(self, "shape", _sides("shape", self.shape))
        if not 1 <= len(self.shape) <= 4:
            raise UsageError(
                f"the shape of input '{self.name}' has {len(self.shape)} axes", why="it has 1 to 4: H, W, C"
            )
        for option, known in (("dtype", tuple(_DTYPES)), ("layout", _LAYOUTS)):
            if getattr(self, option) not in known:
                raise unknown_name(option, str(getattr(self, option)), known)
        if self.color is not None and self.color not in _COLORS:
            raise unknown_name("color", str(self.color), _COLORS)
        if self.resize is not None:
            one = isinstance(self.resize, int)
            sides = _sides("resize", (self.resize,) if one else self.resize)
            put(self, "resize", sides[0] if one else _pair("resize", sides))
        if self.crop is not None:
            put(self, "crop", _pair("crop", _sides("crop", self.crop)))
        if (self.resize is not None or self.crop is not None) and len(self.shape) != 3:
            raise UsageError("resize and crop need an image", why=f"the shape is {self.shape}, not (H, W, C)")
        for option in ("mean", "std"):
            if getattr(self, option) is not None:
                put(self, option, self._per_channel(option, getattr(self, option)))
        for option in ("scale", "zero_point"):
            if getattr(self, option) is not None:
                put(self, option, _finite(option, getattr(self, option)))
        if (self.mean or self.std) and (self.scale is not None or self.zero_point is not None):
            raise UsageError("mean and std, or scale and zero_point, but not both", where=f"input '{self.name}'")
        if self.scale == 0 or (self.std and 0 in self.std):
            raise UsageError("scale and std are not 0", where=f"input '{self.name}'")

    def _per_channel(self, option: str, value: Any) -> tuple[float, ...]:
        values = tuple(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else (value,)
        if len(values) not in (1, self.shape[-1]):
            raise UsageError(
                f"{option} has {len(values)} values for {self.shape[-1]} channels",
                where=f"input '{self.name}'",
            )
        return tuple(_finite(option, item) for item in values)

    def affine(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(zero, factor) per channel, each (C,) float64: x = (raw - zero) * factor."""
        channels = self.shape[-1]
        zero = self.mean if self.mean is not None else (self.zero_point or 0.0,)
        if self.std is not None:
            factor: tuple[float, ...] = tuple(1.0 / item for item in self.std)
        else:
            factor = (1.0 if self.scale is None else self.scale,)
        ones = np.ones(channels)
        return ones * np.asarray(zero), ones * np.asarray(factor)

    def resample(self, raw: Array) -> Array:
        """Raw samples at the size of the model, in the raw dtype, NHWC with a batch axis.

        Args:
            raw: one sample or a batch, in ``dtype`` and ``layout``; where C = 1 the channel axis may be
                missing.

        Raises:
            UsageError: another dtype, or a shape that does not fit.
        """
        raw = np.asarray(raw)
        if raw.dtype != _DTYPES[self.dtype] and not (self.dtype == "f32" and raw.dtype == np.float64):
            raise UsageError(
                f"input '{self.name}' is {self.dtype}, the samples are {raw.dtype}",
                fix=f"convert them without changing their range: samples.astype('{_DTYPES[self.dtype]}')",
            )
        samples = self._batch(raw.astype(_DTYPES[self.dtype], copy=False))
        if len(self.shape) == 3:
            if self.resize is not None:
                samples = resize_bilinear(samples, self.resize)
            if self.crop is not None:
                samples = center_crop(samples, self.crop)
        if samples.shape[1:] != self.shape:
            raise UsageError(
                f"input '{self.name}' takes shape {self.shape}, the samples have {samples.shape[1:]}",
                fix="give resize or crop in the preprocessing description, or samples of the right size",
            )
        return samples

    def _batch(self, raw: Array) -> Array:
        axes = len(self.shape)
        squeezed = self.shape[-1] == 1 and axes > 1
        if squeezed and raw.ndim in (axes - 1, axes) and (raw.ndim == axes - 1 or self._lacks_channel(raw)):
            raw = raw[..., None] if self.layout == "NHWC" else np.expand_dims(raw, raw.ndim - axes + 1)
        if raw.ndim == axes:
            raw = raw[None]
        if raw.ndim != axes + 1:
            raise UsageError(f"input '{self.name}' has shape {self.shape}, the samples have {raw.ndim} axes")
        return np.moveaxis(raw, 1, -1) if self.layout == "NCHW" and axes > 1 else raw

    def _lacks_channel(self, raw: Array) -> bool:
        """Whether an array with as many axes as a sample is a batch without the single channel."""
        return bool(raw.shape[-1 if self.layout == "NHWC" else 0] != 1)

    def preprocess(self, raw: Array) -> npt.NDArray[np.float32]:
        """Raw samples to what the network was trained on: float32 NHWC, computed in float64 and rounded once.

        Args and errors: as :meth:`resample`.
        """
        zero, factor = self.affine()
        return ((self.resample(raw).astype(np.float64) - zero) * factor).astype(np.float32)


@dataclass(frozen=True)
class OutputDescription:
    """One output.

    Attributes:
        name: its name.
        labels: what its classes are called, in order; empty when unknown.
        kind: what the numbers are; ``"logits"``.
    """

    name: str = "logits"
    labels: tuple[str, ...] = ()
    kind: str = "logits"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UsageError("an output needs a name")
        if self.kind != "logits":
            raise unknown_name("kind of output", str(self.kind), ("logits",))
        if isinstance(self.labels, str) or not isinstance(self.labels, Sequence):
            raise UsageError("labels are a list of names", where=f"output '{self.name}'")
        object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))


@dataclass(frozen=True)
class IODescription:
    """All inputs and outputs of a model, in order."""

    inputs: tuple[InputDescription, ...]
    outputs: tuple[OutputDescription, ...] = (OutputDescription(),)

    @classmethod
    def from_settings(
        cls, preprocess: Mapping[str, Any] | None, labels: Sequence[str] | None, shape: Sequence[int] | None
    ) -> IODescription:
        """From what a user types.

        Args:
            preprocess: the fields of one :class:`InputDescription`, or ``{"inputs": [...], "outputs":
                [...]}``.
            labels: names of the classes of the first output.
            shape: (H, W, C) of the model, where ``preprocess`` has none.

        Raises:
            UsageError: unknown fields, or values that do not fit.
        """
        settings = dict(preprocess or {})
        if "inputs" in settings or "outputs" in settings:
            _known("preprocessing description", settings, ("inputs", "outputs"))
            inputs, outputs = settings.get("inputs", [{}]), settings.get("outputs", [{}])
        else:
            inputs, outputs = [settings], [{}]
        if not _is_records(inputs) or not _is_records(outputs):
            raise UsageError("inputs and outputs are lists of JSON objects", where="preprocessing description")
        outputs = [dict(item) for item in outputs]
        if labels is not None and outputs:
            outputs[0]["labels"] = labels
        defaults = {"shape": shape} if shape is not None else {}
        return cls(
            tuple(_make(InputDescription, {**defaults, **item}) for item in inputs),
            tuple(_make(OutputDescription, item) for item in outputs),
        )

    @classmethod
    def from_json(cls, text: str) -> IODescription:
        """Read back :meth:`to_json`.

        Raises:
            ModelFileError: no JSON, or not a description.
        """
        try:
            data = json.loads(text)
            if not isinstance(data, dict):
                raise UsageError("it is not a JSON object")
            return cls.from_settings({"inputs": [], "outputs": [], **data}, None, None)
        except (ValueError, TypeError, RecursionError, BdnetError) as error:
            raise ModelFileError("the I/O description in the file is damaged", why=str(error)) from error

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces; equal descriptions give equal text."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def preprocess(self, raw: Array) -> npt.NDArray[np.float32]:
        """:meth:`InputDescription.preprocess` of the first input: raw samples to float32 NHWC."""
        return self.inputs[0].preprocess(raw)


def describe_io(io: IODescription | None) -> str:
    """One line that says what the first input's samples are."""
    if io is None or not io.inputs:
        return "none given: float NHWC samples, used as they are"
    zero, factor = io.inputs[0].affine()
    same = np.ptp(zero) == 0.0 and np.ptp(factor) == 0.0
    how = f"(raw - {zero[0]:g}) * {factor[0]:g}" if same else "(raw - mean) / std per channel"
    return f"{io.inputs[0].dtype} {io.inputs[0].layout}, {how}"


_Record = TypeVar("_Record", InputDescription, OutputDescription)


def _make(kind: type[_Record], settings: Mapping[str, Any]) -> _Record:
    _known("field of the I/O description", settings, [item.name for item in fields(kind)])
    return kind(**settings)


def _known(what: str, settings: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in settings:
        if key not in known:
            raise unknown_name(what, str(key), known)


def _is_records(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


def _sides(option: str, values: Any) -> tuple[int, ...]:
    """Positive whole numbers that fit 31 bits."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise UsageError(f"{option} is {values!r}; it is a list of whole numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_SIDE:
            raise UsageError(f"{option} is {values!r}; it is a list of positive whole numbers")
    return tuple(values)


def _pair(option: str, sides: tuple[int, ...]) -> tuple[int, int]:
    if len(sides) != 2:
        raise UsageError(f"{option} is {sides}; it is a pair: height, width")
    return sides[0], sides[1]


def _finite(option: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{option} is {value!r}; it is a number") from error
    if not math.isfinite(number):
        raise UsageError(f"{option} is {number}; it is a finite number")
    return number
