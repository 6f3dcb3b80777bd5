"""Networks of the literature, with weights as their authors publish them, through the PyTorch importer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_models_published import CASES, published  # noqa: E402
from torch_modules import BIT, check, layers  # noqa: E402

from bdnet_deploy import checkpoint  # noqa: E402
from bdnet_deploy.model import Model  # noqa: E402
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
    binary = sum(isinstance(m, BinaryConv2d) for m in module.modules())
    assert layers(graph).count((BIT, BIT)) == binary > 0


@pytest.mark.parametrize("numerics", ["float", "fixed16", "fixed8"])
@pytest.mark.parametrize(("arch", "config", "kind"), [CASES[0], CASES[3], CASES[5], CASES[8]])
def test_files_verify_byte_for_byte(
    arch: str, config: dict[str, Any], kind: dict[str, Any], numerics: str, tmp_path: Path
) -> None:
    torch.save(published(arch, config, **kind)[0], tmp_path / "w.pt")
    size = config["input_size"]
    module = checkpoint.load_module(tmp_path / "w.pt", arch, set_=config)
    model = Model(arch, check(module, (1, 3, size, size)))
    samples = np.random.default_rng(1).standard_normal((12, size, size, 3)).astype(np.float32)
    calibrate = None if numerics == "float" else samples
    model.export("bdn", tmp_path / "m.bdn", numerics=numerics, calibrate=calibrate)
    report = model.verify(tmp_path / "m.bdn", inputs=samples[:3], calibrate=calibrate)
    assert (report.facts["verdict"], report.facts["compared"]) == ("equal", "every byte")
