"""Checkpoints: writing ours, reading anyone's without running code in them.

``pickles`` interprets a pickle and calls nothing, ``tensors`` makes arrays, ``containers`` knows the two file
formats of ``torch.save``, ``read`` finds the state dict (these need numpy alone); ``save`` and ``build`` go
from and to torch modules.
"""

from __future__ import annotations

from bdnet_deploy.checkpoint.build import build, load_module
from bdnet_deploy.checkpoint.read import Checkpoint, read
from bdnet_deploy.checkpoint.save import save

__all__ = ["Checkpoint", "build", "load_module", "read", "save"]
