"""Runs ``.tflite`` files that need our own operators in TensorFlow's or LiteRT's interpreter."""

from __future__ import annotations

import importlib.util

import bdnet_deploy
from bdnet_deploy.errors import MissingPackageError
from bdnet_deploy.peers.jobs import Runtime

#: Packages whose interpreters can be given further operators.
PACKAGES = ("tensorflow", "ai_edge_litert")


def runtime(kind: str = "auto", *, xnnpack: bool = True) -> Runtime:
    """The interpreter of ``kind``: ``"tensorflow"``, ``"litert"``, or ``"auto"``, whichever is installed.

    Without ``xnnpack`` the built-in operators are TensorFlow Lite's own; XNNPACK rounds int8 in another way.

    Raises:
        MissingPackageError: none is installed, or this installation cannot give them our operators.
    """
    wanted = {"tensorflow": PACKAGES[:1], "litert": PACKAGES[1:]}.get(kind, PACKAGES)
    if not hasattr(bdnet_deploy, "tflite_interpreter") or not any(_installed(name) for name in wanted):
        raise MissingPackageError(
            "this .tflite has operators of bdnet-deploy's own, which Larq Compute Engine does not know",
            why="the interpreters that can be given them are those of TensorFlow and of ai-edge-litert; none can be used",
            fix="pip install ai-edge-litert (or tensorflow), or export with --profile stock",
        )
    return Runtime("TensorFlow Lite with bdnet-deploy's operators", "tflite", (("runtime", kind), ("xnnpack", xnnpack)))


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
