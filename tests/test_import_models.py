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
from bdnet_deploy.nn import BinaryConv2d, RSign, TernaryActivation, not_yet_binary  # noqa: E402

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


def verify(model: Model, sample: tuple[int, int, int], numerics: str, folder: Path) -> None:
    samples = np.random.default_rng(1).standard_normal((8, *sample)).astype(np.float32)
    calibrate = None if numerics == "float" else samples
    model.export("bdn", folder / "m.bdn", numerics=numerics, calibrate=calibrate)
    report = model.verify(folder / "m.bdn", inputs=samples[:2], calibrate=calibrate)
    assert (report.facts["verdict"], report.facts["compared"]) == ("equal", "every byte")


@pytest.mark.parametrize(("arch", "options"), NETWORKS)
def test_every_binary_convolution_is_recognised(arch: str, options: dict[str, Any]) -> None:
    module = network(arch, options)
    graph = check(module, shape(module), batch=2)
    assert binary_layers(graph) == sum(isinstance(m, BinaryConv2d) for m in module.modules())


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize(("arch", "options"), [NETWORKS[i] for i in (0, 3, 6, 8, 9)])
def test_files_verify_byte_for_byte(arch: str, options: dict[str, Any], numerics: str, tmp_path: Path) -> None:
    module = network(arch, options)
    verify(Model(arch, import_module(module, shape(module))), module.input_shape, numerics, tmp_path)


def test_weights_of_a_high_temperature_stay_real_and_are_named() -> None:
    module = network("bnext", {**BNEXT, "temperature": 1e-4})
    graph = import_module(module, shape(module))
    assert binary_layers(graph) == 0
    for name in not_yet_binary(module):
        assert "weights have" in graph.reasons[name]


def binaryvit(options: dict[str, Any]) -> torch.nn.Module:
    """With positions that are one vector for all, since the graph has no constants that differ from pixel to pixel."""
    sizes = {"widths": (8, 16), "depths": (1, 1), "heads": (1, 2), "reductions": (2, 1), "ratios": (2, 2)}
    module = network("es_binaryvit", {**sizes, "input_size": 16, "classes": 4, "probability": 0.1, **options})
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith("positions"):
                p.copy_(p.mean((2, 3), keepdim=True).expand_as(p))
    return module


@pytest.mark.parametrize("options", [{}, {"tau": 1}, {"expand": "hidden", "merging": "real"}, {"reductions": (1, 1)}])
def test_binaryvit_is_recognised(options: dict[str, Any]) -> None:
    module = binaryvit(options)
    graph = check(module, shape(module), batch=2)
    assert binary_layers(graph) == sum(isinstance(m, BinaryConv2d) for m in module.modules())


@pytest.mark.parametrize("numerics", NUMERICS)
def test_binaryvit_verifies_byte_for_byte(numerics: str, tmp_path: Path) -> None:
    module = binaryvit({})
    verify(Model("vit", import_module(module, shape(module))), module.input_shape, numerics, tmp_path)


class Levels(torch.nn.Module):
    """Bits or trits that nothing but real arithmetic reads."""

    def __init__(self, activation: torch.nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.25 * self.activation(x) + 0.5


@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("channels", [1, 5, 33])
@pytest.mark.parametrize("kind", [RSign, TernaryActivation])
def test_levels_that_no_binary_layer_reads(kind: type, channels: int, numerics: str, tmp_path: Path) -> None:
    torch.manual_seed(channels)
    module = randomize(Levels(kind(channels)))
    graph = import_module(module, (1, channels, 4, 6))
    assert any(node.output.type.dtype in BINARY for node in graph.nodes)
    verify(Model("levels", graph), (4, 6, channels), numerics, tmp_path)
