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

__all__ = ["VerifyError", "verify"]

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
    if inputs is None:
        x = random_inputs(model.graph, samples=min(limit, _RANDOM))[0]
    else:
        x = model.samples(inputs, limit=limit).x
    verdicts = Verdicts()
    facts: dict[str, Value] = {
        "model": model.name,
        "artifact": artifact.name,
        "samples": f"{len(x)} random inputs" if inputs is None else f"{len(x)} given",
    }
    try:
        if suffix in _FOREIGN:
            facts.update(verify_foreign(model, artifact, x, verdicts))
        else:
            facts.update(verify_own(model, artifact, x, verdicts, calibrate=calibrate, judge_top1=inputs is not None))
    except ModelFileError as error:
        error.where = error.where or str(artifact)
        raise
    facts["verdict"] = "equal" if verdicts.first is None else "differs"
    report = Report("verify", facts, [verdicts.table, verdicts.summary()])
    if verdicts.first is not None:
        check, layer, why = verdicts.first
        place = f"in layer '{layer}' ({check})" if layer else f"({check})"
        raise VerifyError(
            report,
            f"the file differs from model '{model.name}' {place}",
            where=str(artifact),
            why=why or None,
            fix=f"export it again: bdnet-deploy export {model.source or 'MODEL'} --target {suffix[1:]}",
        )
    return report
