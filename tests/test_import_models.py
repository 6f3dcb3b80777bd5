"""The newer architectures through the importer: the module's numbers, its binary layers, and the device's bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bdnet_deploy import models
from bdnet_deploy.graph import Conv2d, DType, Graph
from bdnet_deploy.model import Model

torch = pytest.importorskip("torch")

from torch_modules import check, randomize  # noqa: E402

from bdnet_deploy.importers.torch import import_module  # noqa: E402
from bdnet_deploy.nn import BinaryConv2d, not_yet_binary  # noqa: E402

NUMERICS = ("float", "fixed16", "fixed8")
BNEXT = {"widths": (16, 32, 64, 64), "input_size": 16, "classes": 4}
INVERTED = {"width": 0.25, "head": 64, "input_size": 32, "stem_stride": 1, "classes": 4}
RESNET8 = {"width": 8, "input_size": 8}
NETWORKS = [
    ("bnext", BNEXT),
    ("es_bnext", BNEXT),
    ("es_bnext", {**BNEXT, "ops_matched": False}),
    ("es_bnext", {**BNEXT, "groups": 2, "widths": (32, 32, 64, 64)}),
    ("es_resnet20", {"width": 8, "blocks": 1, "input_size": 8, "groups": 2}),
    ("es_resnet18", {"width": 8, "blocks": 1, "input_size": 64, "classes": 4}),
    ("es_resnet18", {"width": 8, "blocks": 1, "input_size": 16, "classes": 4, "groups": 2, "stem": "3x3"}),
    ("bdnet_mobilenet_v2", INVERTED),
    ("bdnet_efficientnet_lite0", {**INVERTED, "linear_bottleneck": True, "ternary": "both"}),
    ("bdnet_resnet8", RESNET8),
    ("bdnet_resnet8", {**RESNET8, "convolutions": "full"}),
]
BINARY = (DType.BIT, DType.TRIT)


def network(arch: str, options: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(3)
    return randomize(models.create(arch, **options)).eval()


def shape(module: torch.nn.Module) -> tuple[int, int, int, int]:
    height, width, channels = module.input_shape
    return 1, channels, height, width


def binary_layers(graph: Graph) -> int:
    return sum(
        isinstance(n.op, Conv2d) and all(value.type.dtype in BINARY for value in n.inputs[:2]) for n in graph.nodes
    )


@pytest.mark.parametrize(("arch", "options"), NETWORKS)
def test_every_binary_convolution_is_recognised(arch: str, options: dict[str, Any]) -> None:
    module = network(arch, options)
    graph = check(module, shape(module), batch=2)
    assert binary_layers(graph) == sum(isinstance(m, BinaryConv2d) for m in module.modules())


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize(("arch", "options"), [NETWORKS[i] for i in (0, 3, 6, 8, 9)])
def test_files_verify_byte_for_byte(arch: str, options: dict[str, Any], numerics: str, tmp_path: Path) -> None:
    module = network(arch, options)
    model = Model(arch, import_module(module, shape(module)))
    samples = np.random.default_rng(1).standard_normal((8, *module.input_shape)).astype(np.float32)
    calibrate = None if numerics == "float" else samples
    model.export("bdn", tmp_path / "m.bdn", numerics=numerics, calibrate=calibrate)
    report = model.verify(tmp_path / "m.bdn", inputs=samples[:2], calibrate=calibrate)
    assert (report.facts["verdict"], report.facts["compared"]) == ("equal", "every byte")


def test_weights_of_a_high_temperature_stay_real_and_are_named() -> None:
    module = network("bnext", {**BNEXT, "temperature": 1e-4})
    graph = import_module(module, shape(module))
    assert binary_layers(graph) == 0
    for name in not_yet_binary(module):
        assert "weights have" in graph.reasons[name]


@pytest.mark.parametrize("options", [{}, {"tau": 1}, {"expand": "hidden", "merging": "real"}, {"reductions": (1, 1)}])
def test_binaryvit_of_one_position_for_all(options: dict[str, Any]) -> None:
    """Learned positions differ from pixel to pixel, which the graph has no constant for: alike, all else is understood."""
    sizes = {"widths": (8, 16), "depths": (1, 1), "heads": (1, 2), "reductions": (2, 1), "ratios": (2, 2)}
    module = network("es_binaryvit", {**sizes, "input_size": 16, "classes": 4, "probability": 0.1, **options})
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith("positions"):
                p.copy_(p.mean((2, 3), keepdim=True).expand_as(p))
    graph = check(module, shape(module), batch=2)
    assert binary_layers(graph) == sum(isinstance(m, BinaryConv2d) for m in module.modules())
