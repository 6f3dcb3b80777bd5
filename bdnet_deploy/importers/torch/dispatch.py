"""Seeing every operator that PyTorch runs."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Mode(TorchDispatchMode):
    """A dispatch mode that does not load PyTorch's compiler, which takes seconds and is not used here."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
