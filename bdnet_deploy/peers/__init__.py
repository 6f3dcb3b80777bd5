"""Other people's runtimes, run to check ours: Larq Compute Engine and onnxruntime."""

from __future__ import annotations

from bdnet_deploy.errors import BdnetError

__all__ = ["PeerError"]


class PeerError(BdnetError):
    """A foreign runtime refused the model, crashed, or took too long; ``job`` is the number of the one it was at."""

    job: int | None = None
