"""``evaluate``: accuracy of several back ends on the same samples, and how far they agree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdnet_deploy import __version__
from bdnet_deploy.analysis.flips import FlipCounter
from bdnet_deploy.analysis.tallies import State, Tally, graph_digest, wilson
from bdnet_deploy.backends import Backend, IntegerBackend, make_backend
from bdnet_deploy.errors import BdnetError, MismatchError, MissingPackageError, UsageError
from bdnet_deploy.graph import Array
from bdnet_deploy.peers.jobs import TIMEOUT_S
from bdnet_deploy.report import Column, Report, Table, Value
from bdnet_deploy.samples import ImageSamples, Samples

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike, Progress

#: Samples between two states of a run that can be resumed, and of a process of a foreign runtime.
_BATCH = 256
_STATE_BATCH = 64
#: Elements of a batch of inputs: 256 MB of float32.
_ELEMENTS = 1 << 26
#: Files that could not be read and were left out are named up to so many.
_NAMED = 20


def evaluate(
    model: Model,
    data: PathLike | Samples,
    backends: Sequence[str],
    *,
    calibrate: PathLike | Samples | Array | None = None,
    limit: int | None = None,
    resume: PathLike | None = None,
    per_class: bool = False,
    flips: bool = False,
    skip_broken: bool = False,
    timeout: float = TIMEOUT_S,
    progress: Progress | None = None,
) -> Report:
    """See :meth:`bdnet_deploy.model.Model.evaluate`."""
    samples = model.samples(data, limit=limit)
    _check_labels(model, samples, None if isinstance(data, Samples) else str(data))
    if skip_broken and not isinstance(samples, ImageSamples):
        raise UsageError("only image files can be left out", fix="leave --skip-broken out")
    with ExitStack() as stack:
        made: list[Backend] = []
        for name in backends:
            made.append(make_backend(model, name, calibrate, progress=progress, timeout=timeout))
            stack.callback(made[-1].close)
        names = _distinct([backend.name for backend in made])
        state = State({}, [Tally(name) for name in names])
        if resume is not None:
            key = _key(model, samples, backends, calibrate, flips=flips, skip_broken=skip_broken)
            state = State.load(Path(resume), key, names)
        counter = FlipCounter(model.float_graph()) if flips else None
        size = _STATE_BATCH if resume is not None else _BATCH
        for start, x, y, skipped in _batches(samples, size, state.done, skip_broken):
            state.skipped += skipped
            if len(x):
                _count(made, state, x, y, start, len(samples), progress)
                if counter is not None:
                    counter.count(x, list(zip(made, state.tallies)))
            state.done = start + len(x) + len(skipped)
            if resume is not None:
                state.save(Path(resume))
    return _report(model, state, made, per_class=per_class, flips=flips, labelled=samples.y is not None)


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


# -- samples ----------------------------------------------------------------------------------------------------------------


def _check_labels(model: Model, samples: Samples, where: str | None) -> None:
    """Class numbers that the model has not are a mistake in the data, and no wrong predictions."""
    classes = int(np.prod(model.graph.outputs[0].type.shape))
    if samples.y is None or not len(samples):
        return
    wrong = np.flatnonzero((samples.y < 0) | (samples.y >= classes))
    if len(wrong):
        i = int(wrong[0])
        named = f" ({samples.files[i]})" if isinstance(samples, ImageSamples) else ""
        raise UsageError(
            f"sample {i}{named} is of class {int(samples.y[i])}, the model has the classes 0 to {classes - 1}",
            where=where,
            why=f"{len(wrong)} of {len(samples)} labels are out of range",
            fix="number the classes as the model does, from 0",
        )


def _batches(
    samples: Samples, size: int, done: int, skip_broken: bool
) -> Iterator[tuple[int, Array, Array | None, list[list[str]]]]:
    """First index, inputs, class numbers, and [file, reason] of what was left out; one batch is held at a time."""
    start = done
    each: int | None = None
    while start < len(samples):
        stop = min(start + (size if each is None else max(1, min(size, _ELEMENTS // each))), len(samples))
        stop = min(stop, start + 1) if each is None and isinstance(samples, ImageSamples) else stop
        skipped: list[list[str]] = []
        if isinstance(samples, ImageSamples):
            kept, parts = [], []
            for i in range(start, stop):
                try:
                    parts.append(samples.read(i))
                    kept.append(i)
                except (MissingPackageError, UsageError):
                    raise  # true of every file
                except BdnetError as error:
                    if not skip_broken:
                        error.fix = error.fix or "mend or remove the file, or leave such files out: --skip-broken"
                        raise
                    skipped.append([str(samples.files[i]), error.why or error.what])
            x = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
            y = None if samples.y is None else samples.y[kept]
        else:
            x = samples.x[start:stop]
            y = None if samples.y is None else samples.y[start:stop]
        if len(x):
            each = int(np.prod(x.shape[1:])) or 1
        yield start, x, y, skipped
        start = stop


def _key(
    model: Model,
    samples: Samples,
    backends: Sequence[str],
    calibrate: PathLike | Samples | Array | None,
    *,
    flips: bool,
    skip_broken: bool,
) -> dict[str, str]:
    """What a run is a run of."""
    y = b"" if samples.y is None else np.ascontiguousarray(samples.y, np.int64).tobytes()
    described = "" if model.io is None else model.io.to_json()
    return {
        "model": graph_digest(model.float_graph()),
        "I/O description": described,
        "set of samples": samples.key + hashlib.sha256(y).hexdigest(),
        "list of back ends": ", ".join(backends),
        "set of calibration samples": "" if calibrate is None else model.samples(calibrate).key,
        "choice of options": f"flips {flips}, skip broken {skip_broken}",
        "version of bdnet-deploy": __version__,
    }


# -- counting -----------------------------------------------------------------------------------------------------------------


def _distinct(names: list[str]) -> list[str]:
    """A back end that is named twice is counted twice."""
    return [name if names.index(name) == i else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _count(
    backends: list[Backend],
    state: State,
    x: Array,
    y: Array | None,
    start: int,
    total: int,
    progress: Progress | None,
) -> None:
    """One batch in every back end."""
    first: Array | None = None
    raws: dict[str, tuple[str, Array]] = {}
    for number in np.unique(y) if y is not None else ():
        state.classes[str(int(number))] = state.classes.get(str(int(number)), 0) + int((y == number).sum())
    for backend, tally in zip(backends, state.tallies):
        step = (lambda n, _, b=tally.name: progress(b, start + n, total)) if progress else None
        if isinstance(backend, IntegerBackend):
            raw = backend.raw(backend.lowered.encode(x), step)
            logits = backend.lowered.decode(raw)
            numerics = backend.lowered.graph.numerics
            if numerics in raws:
                tally.same_as, expected = raws[numerics]
                tally.unequal += sum(a.tobytes() != b.tobytes() for a, b in zip(raw, expected, strict=True))
            else:
                raws[numerics] = (tally.name, raw)
        else:
            logits = backend.predict(x, step)
        logits = np.asarray(logits, np.float64).reshape(len(x), -1)
        if first is not None and logits.shape != first.shape:
            raise UsageError(
                f"{tally.name} has {logits.shape[1]} outputs, {state.tallies[0].name} has {first.shape[1]}",
                fix="leave the file out, it is one of another model",
            )
        first = logits if first is None else first
        tally.add(logits, first, y)
        if progress:
            progress(tally.name, start + len(x), total)


# -- the report ---------------------------------------------------------------------------------------------------------------


def _report(
    model: Model, state: State, backends: list[Backend], *, per_class: bool, flips: bool, labelled: bool
) -> Report:
    count = state.tallies[0].samples
    classes = int(np.prod(model.graph.outputs[0].type.shape))
    tables = [_accuracy_table(state, classes, labelled)]
    if per_class:
        tables.append(_class_table(model, state, labelled))
    if flips:
        tables.append(_flips_table(state, backends))
    facts: dict[str, Value] = {"model": model.name, "samples": count}
    if state.skipped:
        facts["left out"] = len(state.skipped)
        table = Table("left out", [Column("file"), Column("why")], key="skipped")
        for file, why in state.skipped[:_NAMED]:
            table.add(file=file, why=why)
        if len(state.skipped) > _NAMED:
            table.notes.append(f"The first {_NAMED} of {len(state.skipped)}.")
        tables.append(table)
    if count == 0:
        raise UsageError("not one of the samples can be read", why=str(state.skipped[0][1]), where=state.skipped[0][0])
    return Report("evaluate", facts, tables)


def _accuracy_table(state: State, classes: int, labelled: bool) -> Table:
    table = Table(
        "back ends",
        [
            Column("backend", "back end"),
            Column("correct", align="right"),
            Column("samples", align="right"),
            Column("accuracy", "top-1", "%", "right", ".2f"),
            Column("low", "95 % from", "%", "right", ".2f"),
            Column("high", "to", "%", "right", ".2f"),
            Column("top5", "top-5", "%", "right", ".2f"),
            Column("differ", "predictions that differ", align="right"),
            Column("agreement", "agree", "%", "right", ".2f"),
            Column("distance", "largest logit distance", align="right", format=".3g"),
            Column("bytes_equal", "outputs byte for byte"),
        ],
        key="backends",
    )
    for tally in state.tallies:
        n = tally.samples
        low, high = wilson(tally.correct, tally.labelled)
        known = labelled and n > 0
        table.add(
            backend=tally.name,
            correct=tally.correct if known else None,
            samples=n,
            accuracy=100 * tally.correct / n if known else None,
            low=100 * low if known else None,
            high=100 * high if known else None,
            top5=100 * tally.top5 / n if known and classes > 5 else None,
            differ=tally.differ,
            agreement=100 * (n - tally.differ) / n if n else None,
            distance=tally.distance,
            bytes_equal=_bytes_equal(tally),
        )
    table.notes.append(f"Differences are counted against {state.tallies[0].name}.")
    if labelled:
        table.notes.append(
            "The interval is Wilson's, 95 %: where the accuracy on other samples of the same kind may lie."
        )
    for tally in state.tallies:
        if tally.not_finite:
            table.notes.append(f"{tally.name}: {tally.not_finite} samples have logits that are NaN or infinite.")
    return table


def _bytes_equal(tally: Tally) -> str | None:
    if tally.same_as is None:
        return None
    if tally.unequal:
        return f"NOT equal to {tally.same_as} on {tally.unequal} of {tally.samples}"
    return f"equal to {tally.same_as} on all {tally.samples}"


def _class_table(model: Model, state: State, labelled: bool) -> Table:
    if not labelled:
        raise UsageError(
            "accuracy per class needs the classes of the samples", fix="an .npz with y, class folders, a .csv"
        )
    labels = model.io.outputs[0].labels if model.io is not None and model.io.outputs else ()
    columns = [Column("number", "class", align="right"), Column("label"), Column("samples", align="right")]
    keys = [f"backend_{i}" for i in range(len(state.tallies))]
    columns += [Column(key, tally.name, "%", "right", ".2f") for key, tally in zip(keys, state.tallies)]
    table = Table("classes", columns, key="classes", notes=["Top-1 of each back end."])
    for number in sorted(map(int, state.classes)):
        count = state.classes[str(number)]
        shares = {k: 100 * t.class_correct.get(str(number), 0) / count for k, t in zip(keys, state.tallies)}
        label = labels[number] if number < len(labels) else None
        table.add(number=number, label=label, samples=count, **shares)
    return table


def _flips_table(state: State, backends: list[Backend]) -> Table:
    table = Table(
        "sign flips",
        [
            Column("backend", "back end"),
            Column("layer"),
            Column("values", align="right", format=","),
            Column("flips", align="right", format=","),
            Column("share", "of all", "%", "right", ".4f"),
        ],
        key="flips",
        notes=[
            "Signs and trits that are not those of the float reference; every back end computes with its own values."
        ],
    )
    for tally in state.tallies:
        for layer, (values, flips) in tally.flips.items():
            table.add(backend=tally.name, layer=layer, values=values, flips=flips, share=100 * flips / max(values, 1))
    blind = [t.name for b, t in zip(backends, state.tallies) if not FlipCounter.shows_layers(b)]
    if blind:
        table.notes.append(
            f"Not available for {', '.join(blind)}: they show no layers. verify runs those of foreign files one by one."
        )
    return table
