"""Every architecture of the zoo, in a small size, on the host and on emulated cores: the reference's bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_modules import randomize  # noqa: E402

from bdnet_deploy import models  # noqa: E402
from bdnet_deploy.backends import CoreBackend, HostBackend, ReferenceBackend  # noqa: E402
from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.lowering import Lowered, lower  # noqa: E402

#: Small enough for an emulated core; every kind of block is in them.
TINY = {"input_size": 32, "classes": 10}
INVERTED = {**TINY, "width": 0.25, "head": 64, "stem_stride": 1}
BNEXT = {"widths": (16, 32, 64, 64), "input_size": 16, "classes": 4}
SMALL: dict[str, dict[str, Any]] = {
    "adabin_resnet20": {"input_size": 8, "blocks": 1, "width": 8},
    "bdnet_digits": {},
    "bdnet_efficientnet_lite0": INVERTED,
    "bdnet_kws": {"width": 16, "blocks": 2},
    "bdnet_mobilenet_v1": {"width": 0.125, "input_size": 32, "classes": 10},
    "bdnet_mobilenet_v2": INVERTED,
    "bdnet_resnet8": {"width": 8, "input_size": 8},
    "bdnet_vww": {"width": 0.125, "input_size": 32},
    "birealnet_18": {**TINY, "width": 8, "blocks": (2, 2, 1, 1)},
    "bnext": BNEXT,
    "es_binaryvit": {
        "widths": (16, 32),
        "depths": (1, 1),
        "heads": (1, 2),
        "reductions": (2, 1),
        "ratios": (2, 2),
        "input_size": 32,
        "classes": 4,
    },
    "es_bnext": BNEXT,
    "es_resnet18": {"width": 8, "blocks": 1, "input_size": 32, "classes": 4},
    "es_resnet20": {"width": 8, "blocks": 1, "input_size": 8},
    "quicknet": {**TINY, "filters": (16, 16, 24, 32), "blocks": (1, 1, 1, 1)},
    "quicknet_large": {**TINY, "filters": (16, 32), "blocks": (2, 1)},
    "quicknet_small": {**TINY, "filters": (16, 24), "blocks": (1, 1)},
    "reactnet_18": {**TINY, "width": 8, "blocks": (2, 2, 1, 1)},
    "reactnet_a": {**TINY, "widths": (8, 16, 32, 32), "strides": (2, 1, 2, 1)},
}


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
