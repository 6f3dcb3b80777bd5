"""``run``: predictions, one row a sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.bdn_reader import BdnReader
from bdnet_deploy.graph import Array
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.report import Column, Report, Table
from bdnet_deploy.samples import ImageSamples, Samples, load_samples

if TYPE_CHECKING:
    from bdnet_deploy.model import Model


def run_file(path: Path, data: Path, *, limit: int) -> Report:
    """A ``.bdn`` (or ``.c``) file in the host library."""
    file = BdnReader.open(path)
    shape = file.model.inputs[0].shape
    samples = load_samples(data, file.io, shape, limit=limit)
    return _report(
        path.stem,
        f"host library, {file.numerics}",
        np.concatenate([file.predict(x) for x in samples.parts()]),
        samples,
        file.io,
    )


def run_model(model: Model, data: Path, numerics: str, calibrate: Path | Samples | None, *, limit: int) -> Report:
    """A model in the host library."""
    from bdnet_deploy.backends import make_backend

    samples = model.samples(data, limit=limit)
    backend = make_backend(model, f"host:{numerics}", calibrate)
    logits = np.concatenate([backend.predict(x) for x in samples.parts()])
    return _report(model.name, f"host library, {numerics}", logits, samples, model.io)


def _report(name: str, how: str, logits: Array, samples: Samples, io: IODescription | None) -> Report:
    labels = io.outputs[0].labels if io is not None and io.outputs else ()
    files = samples.files if isinstance(samples, ImageSamples) else ()
    table = Table(
        "predictions",
        [
            Column("sample", align="right"),
            *([Column("file")] if files else []),
            Column("predicted"),
            Column("logit", align="right", format=".4f"),
            Column("margin", "to the next", align="right", format=".4f"),
            Column("label", "is"),
        ],
    )
    for i, row in enumerate(logits.reshape(len(logits), -1)):
        best = int(row.argmax())
        ordered = np.sort(row)
        table.add(
            sample=i,
            **({"file": str(files[i])} if files else {}),
            predicted=labels[best] if best < len(labels) else str(best),
            logit=float(row[best]),
            margin=float(ordered[-1] - ordered[-2]) if len(ordered) > 1 else None,
            label=None if samples.y is None else str(samples.y[i]),
        )
    return Report("run", {"model": name, "backend": how}, [table])
