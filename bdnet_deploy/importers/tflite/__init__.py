"""Reads ``.tflite`` files: :func:`import_tflite` makes a Graph of one, by Larq's converter or ours.

The other names read what only our own files have, for ``verify``.
"""

from bdnet_deploy.importers.tflite.own import (
    read_description,
    read_graph,
    split_layers,
)
from bdnet_deploy.importers.tflite.reader import import_tflite

__all__ = [
    "import_tflite",
    "read_description",
    "read_graph",
    "split_layers",
]
