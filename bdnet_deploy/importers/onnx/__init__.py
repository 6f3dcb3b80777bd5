"""ONNX files: those of others become graphs by way of PyTorch, those that this project wrote are read as they were.

==================  ================================================================
``own``             reads our own files: the graph as it was exported, and single layers for ``verify``
``calls``           the graph out of their calls, attributes and initializers
``stored``          their initializers as arrays
``file``            opens a file: operator sets, nodes with functions inlined, limits
``tensors``         initializers, also those in an external ``.data`` file
``places``          which module of the user's model a node belongs to
``interpreter``     a module that runs the nodes with PyTorch
``operators``       what each operator does
``rewrites``        groups of nodes that stand for one operator of PyTorch
``load``            the file's input, and :func:`read`
==================  ================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bdnet_deploy.errors import require
from bdnet_deploy.importers.onnx.own import read_description, read_graph, read_own, split_layers

if TYPE_CHECKING:
    from bdnet_deploy.importers.torch.interpreter import Imported

__all__ = ["read", "read_description", "read_graph", "read_own", "split_layers"]


def read(path: Path, input_shape: Sequence[int] | None = None) -> Imported:
    """An ONNX or QONNX file as a module that :func:`bdnet_deploy.importers.torch.import_module` can import.

    Args:
        path: the file; weights in other files are looked for beside it.
        input_shape: of its input, as the file has it; by default what the file says, with a batch of 1.

    Raises:
        ModelFileError: the file or its weights are missing or damaged.
        UnsupportedError: an operator that cannot be carried over, several inputs, NaN weights; the node is named.
        UsageError: axes without a size and no ``input_shape``, or one that contradicts the file.
        MissingPackageError: torch or onnx is not installed.
    """
    require("torch", extra="torch,onnx")
    require("onnx", extra="torch,onnx")
    from bdnet_deploy.importers.onnx.load import read_file

    return read_file(path, input_shape)
