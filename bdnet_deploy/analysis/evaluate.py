"""``evaluate``: accuracy of several back ends on the same samples, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy.backends import Backend, IntegerBackend, Step, make_backend
from bdnet_deploy.errors import MismatchError
from bdnet_deploy.graph import Array
from bdnet_deploy.report import Column, Report, Table

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike, Progress
    from bdnet_deploy.samples import Samples


def evaluate(
    model: Model,
    data: PathLike | Samples,
    backends: Sequence[str],
    *,
    calibrate: PathLike | Samples | Array | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """See :meth:`bdnet_deploy.model.Model.evaluate`."""
    samples = model.samples(data, limit=limit)
    table = Table(
        "back ends",
        [
            Column("backend", "back end"),
            Column("correct", align="right"),
            Column("samples", align="right"),
            Column("accuracy", "top-1", "%", "right", ".2f"),
            Column("differ", "predictions that differ", align="right"),
            Column("distance", "largest logit distance", align="right", format=".3g"),
            Column("bytes_equal", "outputs byte for byte"),
        ],
        key="backends",
    )
    first: Array | None = None
    raws: dict[str, tuple[str, Array]] = {}
    for name in backends:
        backend = make_backend(model, name, calibrate, progress=progress)
        step = (lambda done, total, b=backend: progress(b.name, done, total)) if progress else None
        logits, equal = _run(backend, samples, raws, step)
        first = logits if first is None else first
        predicted = logits.argmax(-1)
        correct = None if samples.y is None else int((predicted == samples.y).sum())
        table.add(
            backend=backend.name,
            correct=correct,
            samples=len(samples),
            accuracy=None if correct is None else 100 * correct / len(samples),
            differ=int((predicted != first.argmax(-1)).sum()),
            distance=float(np.abs(logits - first).max()),
            bytes_equal=equal,
        )
    table.notes.append(f"Differences are counted against {table.rows[0]['backend']}.")
    return Report("evaluate", {"model": model.name, "samples": len(samples)}, [table])


def check_bytes(report: Report) -> None:
    """Back ends of one numerics must agree in every byte.

    Raises:
        MismatchError: some do not; they are named.
    """
    wrong = [str(row["backend"]) for row in report.table("backends").rows if str(row["bytes_equal"]).startswith("NOT")]
    if wrong:
        raise MismatchError(
            f"the outputs of {', '.join(wrong)} are not those of the first back end of their numerics",
            fix="please report this: emulated cores, host library and reference must agree in every byte",
        )


def _run(
    backend: Backend, samples: Samples, raws: dict[str, tuple[str, Array]], step: Step | None
) -> tuple[Array, str | None]:
    """Logits, and whether the bytes equal those of the first back end of the same numerics."""
    outputs: list[Array] = []
    done = 0
    for x in samples.parts():
        part = (lambda n, _, start=done: step(start + n, len(samples))) if step else None
        if isinstance(backend, IntegerBackend):
            outputs.append(backend.raw(backend.lowered.encode(x), part))
        else:
            outputs.append(backend.predict(x, part))
        done += len(x)
    raw = np.concatenate(outputs)
    if not isinstance(backend, IntegerBackend):
        return raw, None
    logits = backend.lowered.decode(raw)
    numerics = backend.lowered.graph.numerics
    if numerics not in raws:
        raws[numerics] = (backend.name, raw)
        return logits, None
    name, reference = raws[numerics]
    same = np.array([a.tobytes() == b.tobytes() for a, b in zip(raw, reference, strict=True)])
    if same.all():
        return logits, f"equal to {name} on all {len(raw)}"
    return logits, f"NOT equal to {name} on {int((~same).sum())} of {len(raw)}"
