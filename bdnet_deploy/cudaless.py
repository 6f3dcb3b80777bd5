"""Running code that was written for a GPU without one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from bdnet_deploy.errors import require


@contextlib.contextmanager
def without_cuda() -> Iterator[None]:
    """Research code calls ``.cuda()`` in constructors and in forward; where there is no GPU it means "stay"."""
    torch: Any = require("torch", extra="torch")
    if torch.cuda.is_available():
        yield
        return
    original = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    try:
        yield
    finally:
        torch.Tensor.cuda = original
