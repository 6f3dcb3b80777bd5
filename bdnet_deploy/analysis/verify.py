"""``verify``: does an exported file say what the model says?

Decoded parameters first, then every layer in isolation, fed the reference's own inputs, then end to end. Integers, signs
and trits must be equal except where the value that was compared lies within a few units in the last place of the
threshold (near ties, counted); our own files must be equal byte for byte. End to end, a near tie that flips cascades, so
flips, logit distance and top-1 agreement are reported and only top-1 is judged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bdnet_deploy.analysis.comparing.foreign import verify_foreign
from bdnet_deploy.analysis.comparing.own import verify_own
from bdnet_deploy.analysis.comparing.verdicts import Verdicts, VerifyError
from bdnet_deploy.errors import ModelFileError, UsageError
from bdnet_deploy.files import no_such_file
from bdnet_deploy.graph import Array
from bdnet_deploy.passes import random_inputs
from bdnet_deploy.report import Report, Value

if TYPE_CHECKING:
    from bdnet_deploy.model import Model, PathLike
    from bdnet_deploy.samples import Samples

__all__ = ["VerifyError", "verify", "verify_import"]

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
) -> Report:
    """See :meth:`bdnet_deploy.model.Model.verify`."""
    if not artifact.exists():
        raise no_such_file(artifact)
    suffix = artifact.suffix.lower()
    if suffix not in (*_FOREIGN, *_OWN):
        raise UsageError(
            f"'{suffix}' files cannot be verified" if suffix else "what this is cannot be told from its name",
            where=str(artifact),
            fix=f"verify {', '.join((*_FOREIGN, *_OWN))} files",
        )
    if calibrate is not None and suffix in _FOREIGN:
        raise UsageError(f"{suffix} files are float: no calibration samples", fix="leave --calibrate out")
    x, facts = _samples(model, inputs, min(limit, _RANDOM) if inputs is None else limit)
    facts = {"model": model.name, "artifact": artifact.name, **facts}
    verdicts = Verdicts()
    try:
        if suffix in _FOREIGN:
            facts.update(verify_foreign(model, artifact, x, verdicts))
        else:
            facts.update(verify_own(model, artifact, x, verdicts, calibrate=calibrate, judge_top1=inputs is not None))
    except ModelFileError as error:
        error.where = error.where or str(artifact)
        raise
    fix = f"export it again: bdnet-deploy export {model.source or 'MODEL'} --target {suffix[1:]}"
    return _judged(facts, verdicts, f"the file differs from model '{model.name}'", where=str(artifact), fix=fix)


def verify_import(model: Model, *, inputs: PathLike | Array | Samples | None = None, limit: int = 20) -> Report:
    """See :meth:`bdnet_deploy.model.Model.verify_import`."""
    module = model.module()
    from bdnet_deploy.analysis.comparing.imported import compare_import
    from bdnet_deploy.importers.torch import import_recorded

    x, facts = _samples(model, inputs, limit)
    facts = {"model": model.name, "compared with": "PyTorch", **facts}
    shape = model.graph.inputs[0].type.shape
    verdicts = Verdicts()
    compare_import(import_recorded(module, (1, shape[-1], *shape[1:-1]), name=model.name), x, verdicts)
    fix = "please report it, with the layer's code"
    return _judged(facts, verdicts, f"model '{model.name}' was imported wrongly", where=None, fix=fix)


def _samples(model: Model, inputs: PathLike | Array | Samples | None, limit: int) -> tuple[Array, dict[str, Value]]:
    """Inputs as the graph takes them, and what they are."""
    if inputs is None:
        x = random_inputs(model.graph, samples=limit)[0]
        return x, {"samples": f"{len(x)} random inputs"}
    x = model.samples(inputs, limit=limit).x
    return x, {"samples": f"{len(x)} given"}


def _judged(facts: dict[str, Value], verdicts: Verdicts, what: str, *, where: str | None, fix: str) -> Report:
    """The report.

    Raises:
        VerifyError: something differs; the first such layer is named.
    """
    facts["verdict"] = "equal" if verdicts.first is None else "differs"
    report = Report("verify", facts, [verdicts.table, verdicts.summary()])
    if verdicts.first is None:
        return report
    check, layer, why = verdicts.first
    place = f"in layer '{layer}' ({check})" if layer else f"({check})"
    raise VerifyError(report, f"{what} {place}", where=where or layer, why=why or None, fix=fix)
