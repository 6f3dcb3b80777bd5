"""Every architecture in a size for trying things out: small enough for an emulated core, with every kind of its blocks."""

from __future__ import annotations

from typing import Any

_TINY = {"input_size": 32, "classes": 10}
_INVERTED = {**_TINY, "width": 0.25, "head": 64, "stem_stride": 1}
_BNEXT = {"widths": (16, 32, 64, 64), "input_size": 16, "classes": 4}
#: Architecture -> its settings.
SMALL: dict[str, dict[str, Any]] = {
    "adabin_resnet20": {"input_size": 8, "blocks": 1, "width": 8},
    "bdnet_digits": {},
    "bdnet_efficientnet_lite0": _INVERTED,
    "bdnet_kws": {"width": 16, "blocks": 2},
    "bdnet_mobilenet_v1": {"width": 0.125, "input_size": 32, "classes": 10},
    "bdnet_mobilenet_v2": _INVERTED,
    "bdnet_resnet8": {"width": 8, "input_size": 8},
    "bdnet_vww": {"width": 0.125, "input_size": 32},
    "birealnet_18": {**_TINY, "width": 8, "blocks": (2, 2, 1, 1)},
    "bnext": _BNEXT,
    "es_binaryvit": {
        "widths": (16, 32),
        "depths": (1, 1),
        "heads": (1, 2),
        "reductions": (2, 1),
        "ratios": (2, 2),
        "input_size": 32,
        "classes": 4,
    },
    "es_bnext": _BNEXT,
    "es_resnet18": {"width": 8, "blocks": 1, "input_size": 32, "classes": 4},
    "es_resnet20": {"width": 8, "blocks": 1, "input_size": 8},
    "quicknet": {**_TINY, "filters": (16, 16, 24, 32), "blocks": (1, 1, 1, 1)},
    "quicknet_large": {**_TINY, "filters": (16, 32), "blocks": (2, 1)},
    "quicknet_small": {**_TINY, "filters": (16, 24), "blocks": (1, 1)},
    "reactnet_18": {**_TINY, "width": 8, "blocks": (2, 2, 1, 1)},
    "reactnet_a": {**_TINY, "widths": (8, 16, 32, 32), "strides": (2, 1, 2, 1)},
}
