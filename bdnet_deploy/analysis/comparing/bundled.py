"""Samples that travel with a model: the test vector of a ``.bdn`` or ``.c``, or ``test.npz`` beside the model's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy import bdn_format
from bdnet_deploy.errors import UsageError
from bdnet_deploy.graph import Array, DType

if TYPE_CHECKING:
    from bdnet_deploy.bdn_reader import BdnReader
    from bdnet_deploy.model import Model

#: What ``--inputs`` is called then.
WORD = "bundled"
_BESIDE = "test.npz"


def bundled_inputs(model: Model | None, files: tuple[Path, ...], limit: int) -> tuple[Array, str]:
    """Inputs as the network sees them, (N, ...) float32, and where they are from.

    Raises:
        UsageError: nothing is bundled.
    """
    if model is not None and model.source is not None and (path := model.source.with_name(_BESIDE)).is_file():
        return model.samples(path, limit=limit).x, f"{_BESIDE} beside the model"
    for path in files:
        if path.suffix.lower() in (".bdn", ".c"):
            from bdnet_deploy.bdn_reader import BdnReader

            x = vector_input(BdnReader.open(path))
            if x is not None:
                return x, f"the test vector in {path.name}"
    raise UsageError(
        "no samples are bundled with these files",
        why=f"there is no {_BESIDE} beside the model, and no file has a test vector",
        fix="--inputs samples.npz, or leave --inputs out: random inputs",
    )


def vector_input(reader: BdnReader) -> Array | None:
    """The input of a file's test vector, (1, ...) float32 as the network sees it; None where it has none."""
    payload = reader.file.records.get(bdn_format.RECORD_TEST)
    head = reader.file.test_vector
    if payload is None or head is None:
        return None
    quant, dtype = reader._quantization("inputs")
    shape = (1, *reader.model.inputs[0].shape)
    if int(head["kind"]) == 1:
        raw = bdn_format.test_input(int(head["seed"]), shape, bdn_format.DType[dtype.name])
    else:
        start, size = bdn_format.TEST_VECTOR.itemsize, int(head["input_bytes"])
        raw = np.frombuffer(payload[start : start + size], DType(dtype).numpy)
        if raw.size != int(np.prod(shape)):
            return None
    raw = raw.reshape(shape)
    return np.asarray(raw, np.float32) if quant is None else np.asarray(quant.dequantize(raw), np.float32)
