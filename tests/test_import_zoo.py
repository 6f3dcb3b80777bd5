"""Networks of the literature, with weights as their authors publish them, through the PyTorch importer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from test_models_published import CASES, published  # noqa: E402
from torch_modules import BIT, check, layers  # noqa: E402

from bdnet_deploy import checkpoint  # noqa: E402
from bdnet_deploy.nn import BinaryConv2d  # noqa: E402


@pytest.mark.parametrize(("arch", "config", "kind"), CASES)
def test_imported_as_the_module_computes(
    arch: str, config: dict[str, Any], kind: dict[str, Any], tmp_path: Path
) -> None:
    state, _ = published(arch, config, **kind)
    torch.save(state, tmp_path / "w.pt")
    module = checkpoint.load_module(tmp_path / "w.pt", arch, set_=config)
    size = config["input_size"]
    graph = check(module, (1, 3, size, size))
    if arch != "adabin_resnet20":  # its levels lie unequally around zero: binary is not the only right answer
        binary = sum(isinstance(m, BinaryConv2d) for m in module.modules())
        assert layers(graph).count((BIT, BIT)) == binary > 0
