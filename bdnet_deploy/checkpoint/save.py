"""Writing our checkpoint: architecture, configuration, weights and I/O description in one ``model.pt``."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdnet_deploy.errors import BdnetError, require
from bdnet_deploy.files import write_atomic
from bdnet_deploy.iodesc import IODescription

if TYPE_CHECKING:
    from torch import nn

FORMAT = "bdnet-deploy"
VERSION = 1


def save(
    module: nn.Module,
    path: str | os.PathLike[str],
    preprocess: Mapping[str, Any] | IODescription | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write ``module`` as a checkpoint that rebuilds itself: a PyTorch file with one plain dictionary.

    Keys: ``format`` ("bdnet-deploy"), ``version`` (1), ``arch`` and ``config`` (of
        :mod:`bdnet_deploy.models`; None for
    other modules, which then need ``--model package.module:factory``), ``state_dict``, and ``io`` (JSON text
    or None). ``torch.load`` reads it with ``weights_only=True``. Equal modules give equal bytes with one
    PyTorch version.

    Args:
        module: the trained module, on any device.
        path: the file; an older one is replaced atomically.
        preprocess: how raw samples become inputs: the fields of
            :class:`bdnet_deploy.iodesc.InputDescription`, or a whole description. The shape is that of the
            module's ``input_shape`` where it is not given.
        labels: names of the classes.

    Returns:
        The path.

    Raises:
        UsageError: the description is not valid.
        BdnetError: the file cannot be written.
    """
    torch = require("torch", extra="torch")
    description = preprocess
    if not isinstance(description, IODescription) and (preprocess is not None or labels is not None):
        description = IODescription.from_settings(description, labels, getattr(module, "input_shape", None))
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "arch": getattr(module, "bdnet_arch", None),
        "config": getattr(module, "bdnet_config", None),
        "state_dict": weights,
        "io": description.to_json() if isinstance(description, IODescription) else None,
    }
    # In memory first: the archive then bears no file name, so the bytes do not depend on it.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    target = Path(path)
    try:
        write_atomic(target, buffer.getvalue())
    except OSError as error:
        raise BdnetError("the checkpoint cannot be written", where=str(target), why=error.strerror) from error
    return target
