"""Which kernels the runtime has: the table that its C sources are built from."""

from __future__ import annotations

import re
from functools import cache

from bdnet_deploy.resources import runtime_dir


@cache
def kernel_names() -> frozenset[str]:
    """The names in ``runtime/kernels/kernels.def``.

    Raises:
        BdnetError: the installation lacks the runtime's sources.
    """
    text = (runtime_dir() / "kernels" / "kernels.def").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^BD_KERNEL\((\w+)\)", text, re.MULTILINE))
