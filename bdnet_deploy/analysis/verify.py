"""``verify``: does an exported file say what the model says?

Decoded parameters first, then every layer in isolation, fed the reference's own inputs, then end to end. Integers, signs
and trits must be equal except where the value that was compared lies within a few units in the last place of the
threshold (near ties, counted); our own files must be equal byte for byte. End to end, a near tie that flips cascades, so
flips, logit distance and top-1 agreement are reported and only top-1 is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bdnet_deploy.analysis.comparing.bundled import WORD, bundled_inputs
from bdnet_deploy.analysis.comparing.foreign import verify_foreign
from bdnet_deploy.analysis.comparing.int8 import verify_int8
from bdnet_deploy.analysis.comparing.others import verify_other
from bdnet_deploy.analysis.comparing.own import verify_own
from bdnet_deploy.analysis.comparing.settings import ELEMENTS, Settings
from bdnet_deploy.analysis.comparing.verdicts import RunError, Verdicts, VerifyError
from bdnet_deploy.errors import ModelFileError, UsageError
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array
from bdnet_deploy.importers.artifact import EditedFileError, NotOursError
from bdnet_deploy.importers.tflite.own import Int8FileError
from bdnet_deploy.passes import batch_size, random_inputs
from bdnet_deploy.peers.jobs import TIMEOUT_S
from bdnet_deploy.report import Report, Table, Value

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike
    from bdnet_deploy.samples import Samples

__all__ = ["RunError", "VerifyError", "verify", "verify_files", "verify_import"]

_FOREIGN = (".tflite", ".onnx")
_OWN = (".bdn", ".c")
#: How many random inputs replace samples.
_RANDOM = 8


def verify(
    model: Model,
    artifact: Path,
    *,
    inputs: PathLike | Array | Samples | None = None,
    calibrate: PathLike | Array | Samples | None = None,
    limit: int = 20,
    timeout: float = TIMEOUT_S,
    min_agreement: float | None = None,
) -> Report:
    """See :meth:`bdnet_deploy.model.Model.verify`."""
    settings = _settings(inputs, timeout, min_agreement)
    suffix = _checked(artifact)
    if calibrate is not None and suffix in _FOREIGN:
        raise UsageError(f"{suffix} files have no fixed-point ranges of ours", fix="leave --calibrate out")
    arrays, facts = _samples(model, inputs, limit, (artifact,))
    facts = {"model": model.name, "artifact": artifact.name, **facts}
    verdicts, tables = Verdicts(), list[Table]()
    try:
        if suffix in _OWN:
            facts |= verify_own(model, artifact, arrays[0], verdicts, calibrate=calibrate, settings=settings)
        else:
            try:
                more, tables = verify_foreign(model, artifact, arrays, verdicts, settings)
                facts |= more
            except NotOursError:
                facts |= verify_other(model, artifact, arrays, verdicts, settings)
            except Int8FileError:
                facts |= verify_int8(model, artifact, arrays, verdicts, settings)
            except EditedFileError as error:
                why = "; ".join(text for text in (error.what, error.why) if text)
                verdicts.add("file", "", compared=1, different=1, why=why, cause="an edited file")
                facts |= verify_other(model, artifact, arrays, verdicts, settings)
    except ModelFileError as error:
        error.where = error.where or str(artifact)
        raise
    fix = f"export it again: bdnet-deploy export {model.source or 'MODEL'} --target {suffix[1:]}"
    if str(facts.get("file", "")).startswith("of another program"):
        fix = "compare what the two programs were given: weights, preprocessing, padding; or export with bdnet-deploy"
    what = f"the file differs from model '{model.name}'"
    return _judged(facts, verdicts, what, where=str(artifact), fix=fix, tables=tables)


def verify_files(
    a: Path,
    b: Path,
    load: Callable[[Path], Model],
    *,
    inputs: PathLike | Array | Samples | None = None,
    calibrate: PathLike | Array | Samples | None = None,
    limit: int = 20,
    timeout: float = TIMEOUT_S,
    min_agreement: float | None = None,
) -> Report:
    """Compare any two files of one model; the first is the reference, unless only the second can be imported.

    Args:
        a, b: files that can be imported (checkpoints, ``.pt2``, ``.onnx``, ``.tflite``, Keras), or ``.bdn`` and ``.c``.
        load: imports the reference.
        inputs, calibrate, limit, timeout, min_agreement: as for :meth:`bdnet_deploy.model.Model.verify`.

    Raises:
        MismatchError, UsageError, ModelFileError: as there.
    """
    a, b = reference_first(a, b)
    if a.suffix.lower() in _OWN:
        if calibrate is not None:
            raise UsageError("two files of our own runtime need no samples of calibration", fix="leave --calibrate out")
        return _verify_pair(a, b, inputs, limit, _settings(inputs, timeout, min_agreement))
    return verify(
        load(a), b, inputs=inputs, calibrate=calibrate, limit=limit, timeout=timeout, min_agreement=min_agreement
    )


def reference_first(a: Path, b: Path) -> tuple[Path, Path]:
    """Two files in the order of reference and artifact: a model, or what can be imported, is the reference.

    Two files of our own runtime stay as they are: then the first one ends in ``.bdn`` or ``.c``.

    Raises:
        ModelFileError: one is not there.
        UsageError: neither can be verified.
    """
    for path in (a, b):
        if not path.exists():
            raise no_such_file(path)
    exported = (*_OWN, *_FOREIGN)
    first, second = a.suffix.lower(), b.suffix.lower()
    if (first in _OWN and second not in _OWN) or (first in exported and second not in exported):
        a, b = b, a
    _checked(b)
    return a, b


def _verify_pair(a: Path, b: Path, inputs: PathLike | Array | Samples | None, limit: int, settings: Settings) -> Report:
    import numpy as np

    from bdnet_deploy.analysis.comparing.pairs import open_pair, verify_pair
    from bdnet_deploy.samples import Samples, load_samples

    first, second = open_pair(a, b)
    shape = tuple(first.model.inputs[0].shape)
    if inputs is None:
        x = np.random.default_rng(0).standard_normal((min(limit, _RANDOM), *shape), np.float32)
        samples = f"{len(x)} random inputs"
    elif isinstance(inputs, str | Path) and str(inputs) == WORD:
        x, samples = bundled_inputs(None, (a, b), limit)
    elif isinstance(inputs, Samples):
        x, samples = inputs.limited(limit).x, "given"
    elif isinstance(inputs, np.ndarray):
        x, samples = inputs[:limit], "given"
    else:
        x = load_samples(Path(inputs), first.io or second.io, shape, limit=limit).x
        samples = f"{len(x)} given"
    facts: dict[str, Value] = {"model": a.name, "artifact": b.name, "samples": samples}
    verdicts = Verdicts()
    facts |= verify_pair(first, second, x, verdicts, settings)
    fix = "export both again from one model, with one set of samples for --calibrate"
    return _judged(facts, verdicts, f"the file differs from {a.name}", where=str(b), fix=fix)


def verify_import(model: Model, *, inputs: PathLike | Array | Samples | None = None, limit: int = 20) -> Report:
    """See :meth:`bdnet_deploy.model.Model.verify_import`."""
    module = model.module()
    from bdnet_deploy.analysis.comparing.imported import compare_import
    from bdnet_deploy.importers.torch import import_recorded

    arrays, facts = _samples(model, inputs, limit, ())
    facts = {"model": model.name, "compared with": "PyTorch", **facts}
    shape = model.graph.inputs[0].type.shape
    verdicts = Verdicts()
    compare_import(import_recorded(module, (1, shape[-1], *shape[1:-1]), name=model.name), arrays[0], verdicts)
    fix = "please report it, with the layer's code"
    return _judged(facts, verdicts, f"model '{model.name}' was imported wrongly", where=None, fix=fix)


def _settings(inputs: object, timeout: float, min_agreement: float | None) -> Settings:
    if min_agreement is not None and not 0.0 <= min_agreement <= 1.0:
        raise UsageError(f"min_agreement is {min_agreement:g}", fix="a share from 0 to 1, e.g. --min-agreement 0.95")
    if not timeout > 0:
        raise UsageError(f"timeout is {timeout:g} s", fix="seconds above 0, e.g. --timeout 600")
    return Settings(timeout, min_agreement, judge_integers=inputs is not None or min_agreement is not None)


def _checked(artifact: Path) -> str:
    """The suffix of a file that can be verified.

    Raises:
        ModelFileError: it is not there.
        UsageError: it is of another kind.
    """
    if not artifact.exists():
        raise no_such_file(artifact)
    suffix = artifact.suffix.lower()
    if suffix not in (*_FOREIGN, *_OWN):
        raise UsageError(
            f"'{suffix}' files cannot be verified" if suffix else "what this is cannot be told from its name",
            where=str(artifact),
            fix=f"verify {', '.join((*_FOREIGN, *_OWN))} files",
        )
    return suffix


def _samples(
    model: Model, inputs: PathLike | Array | Samples | None, limit: int, files: tuple[Path, ...]
) -> tuple[list[Array], dict[str, Value]]:
    """One array (N, ...) per graph input, and what they are."""
    if inputs is None:
        count = min(limit, _RANDOM, batch_size(model.graph, elements=ELEMENTS))
        arrays = random_inputs(model.graph, samples=count)
        return arrays, {"samples": f"{count} random inputs"}
    if len(model.graph.inputs) != 1:
        raise UsageError("a model of several inputs is compared on random ones only", fix="leave --inputs out")
    if isinstance(inputs, str | Path) and str(inputs) == WORD:
        x, what = bundled_inputs(model, files, limit)
        return [x], {"samples": f"{len(x)}, {what}"}
    x = model.samples(inputs, limit=limit).x
    return [x], {"samples": f"{len(x)} given"}


def _judged(
    facts: dict[str, Value],
    verdicts: Verdicts,
    what: str,
    *,
    where: str | None,
    fix: str,
    tables: list[Table] | None = None,
) -> Report:
    """The report.

    Raises:
        VerifyError: something differs; the first such layer is named, with the likely cause where one fits.
        RunError: nothing differs, but a runtime did not run.
    """
    first, failure = verdicts.first, verdicts.failure
    facts["verdict"] = "differs" if first is not None else "equal" if failure is None else "not run"
    if first is not None:
        facts["first difference"] = "; ".join(text for text in (first.check, first.layer, first.why) if text)
        facts["likely cause"] = verdicts.cause or "not known: no hypothesis fits"
    report = Report("verify", facts, [verdicts.table, *(tables or []), verdicts.summary()])
    if first is not None:
        place = f"in layer '{first.layer}' ({first.check})" if first.layer else f"({first.check})"
        reasons = [first.why, f"likely cause: {verdicts.cause}" if verdicts.cause else ""]
        why = "; ".join(text for text in reasons if text)
        raise VerifyError(report, f"{what} {place}", where=where or first.layer, why=why or None, fix=fix)
    if failure is not None:
        check, layer, error = failure
        raise RunError(
            report,
            f"{error.what} ({check}{f', layer {layer!r}' if layer else ''})",
            where=where or layer,
            why=error.why,
            fix=error.fix or "nothing that could be compared differs; try another mode or version of the runtime",
        )
    return report
