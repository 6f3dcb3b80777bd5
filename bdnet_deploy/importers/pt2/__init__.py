"""``torch.export`` files (``.pt2``): their program is run node by node, through the recorder.

``torch.export.load`` is not used: it unpickles sample inputs and constants, evaluates symbolic expressions as Python, and looks
up the functions of the program by name in whole modules. Here the program is read as data, tensors as bytes, and only
PyTorch's own tensor operators on a list are called.

==============  ====================================================
``archive``     the ZIP file: the program as JSON and the tensors
``program``     the nodes, and the module that runs them
``operators``   which operators a program may call
==============  ====================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require

if TYPE_CHECKING:
    from bdnet_deploy.importers.torch.interpreter import Imported

__all__ = ["read"]


def read(path: Path, input_shape: Sequence[int] | None = None) -> Imported:
    """A ``.pt2`` file as a module that :func:`bdnet_deploy.importers.torch.import_module` can import.

    Args:
        path: the file, written by ``torch.export.save`` of PyTorch 2.8 or later.
        input_shape: of its input; by default that of the example that it was exported with, where that is fixed.

    Raises:
        ModelFileError: the file is missing, damaged, or of an older format.
        UnsupportedError: an operator that may not be called, or several inputs; the node is named.
        UsageError: axes without a size and no ``input_shape``, or one that contradicts the file.
        MissingPackageError: torch is not installed.
    """
    require("torch", extra="torch")
    from bdnet_deploy.importers.pt2.program import read_file

    return read_file(path, input_shape)
