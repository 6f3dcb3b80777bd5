"""Deploy binary and 1.58-bit neural networks from PyTorch to Arm microcontrollers and computers.

>>> import bdnet_deploy
>>> model = bdnet_deploy.load("model.pt")  # doctest: +SKIP

Names are imported on first use, so that ``import bdnet_deploy`` costs nothing and needs no optional package.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# public name -> module that defines it
_EXPORTS = {
    "Artifact": "bdnet_deploy.artifact",
    "BdnetError": "bdnet_deploy.errors",
    "Column": "bdnet_deploy.report",
    "IODescription": "bdnet_deploy.iodesc",
    "Interpreter": "bdnet_deploy.interpreter",
    "Model": "bdnet_deploy.model",
    "Report": "bdnet_deploy.report",
    "Table": "bdnet_deploy.report",
    "load": "bdnet_deploy.loading",
    "save": "bdnet_deploy.checkpoint",
    "tflite_interpreter": "bdnet_deploy.peers.tensorflow_lite",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'bdnet_deploy' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
