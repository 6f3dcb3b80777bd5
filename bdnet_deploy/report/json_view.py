"""A report as canonical JSON: equal reports give equal bytes."""

from __future__ import annotations

import json
import math
from typing import Any

from bdnet_deploy.report.tables import Report


def render(report: Report) -> str:
    """The report as JSON: keys sorted, ASCII only, floats in their shortest exact form.

    JSON has no infinities and no NaN; they become the strings ``"inf"``, ``"-inf"`` and ``"nan"``.
    """
    return json.dumps(_finite(report.to_dict()), sort_keys=True, indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
