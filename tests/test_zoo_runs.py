"""Every architecture of the zoo, in a small size, on the host and on emulated cores: the reference's bytes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_modules import randomize  # noqa: E402

from bdnet_deploy import models  # noqa: E402
from bdnet_deploy.backends import CoreBackend, HostBackend, ReferenceBackend  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.lowering import Lowered, lower  # noqa: E402
from bdnet_deploy.models.small import SMALL  # noqa: E402


def test_every_architecture_is_here() -> None:
    assert sorted(SMALL) == models.names()


def lowered(arch: str, numerics: str) -> tuple[Lowered, np.ndarray]:
    torch.manual_seed(6)
    module = randomize(models.create(arch, **SMALL[arch])).eval()
    height, width, channels = module.input_shape
    graph = import_module(module, (1, channels, height, width), name=arch)
    x = np.random.default_rng(2).standard_normal((8, height, width, channels)).astype(np.float32)
    return lower(graph, numerics, samples=None if numerics == "float" else x), x


@pytest.mark.parametrize("numerics", ["float", "fixed16", "fixed8"])
@pytest.mark.parametrize("arch", SMALL)
def test_host(arch: str, numerics: str) -> None:
    low, x = lowered(arch, numerics)
    data = low.encode(x[:2])
    expected = ReferenceBackend(low).raw(data)
    assert np.array_equal(HostBackend(low).raw(data), expected, equal_nan=True)
    assert np.ptp(expected.astype(np.float64)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("core", "numerics"), [("cortex-m4", "fixed8"), ("cortex-a72", "float")])
@pytest.mark.parametrize("arch", SMALL)
def test_emulated(arch: str, core: str, numerics: str) -> None:
    low, x = lowered(arch, numerics)
    data = low.encode(x[:1])
    assert np.array_equal(CoreBackend(low, core).raw(data), ReferenceBackend(low).raw(data), equal_nan=True)
