"""The networks of ``networks.py``: what each is, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bdnet_deploy import errors
from bdnet_deploy.loading import load
from bdnet_deploy.model import Model

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
SEED = 1


@dataclass(frozen=True)
class Network:
    """``shape`` says what it is; ``calibrate`` holds samples where the weights are trained, None where they are random."""

    name: str
    shape: str
    build: Callable[[], Model]
    calibrate: Path | None = None

    @property
    def weights(self) -> str:
        return "trained" if self.calibrate else "random, timing only"


def _random(arch: str, **settings: Any) -> Callable[[], Model]:
    return lambda: random_model(arch, **settings)


NETWORKS = {
    network.name: network
    for network in (
        Network(
            "digits",
            "BD-Net of examples/digits, 8x8x1, 10 classes",
            lambda: load(DIGITS / "model.pt"),
            DIGITS / "calibration.npz",
        ),
        Network("vww_0.25_96", "BD-Net, MobileNet V1 0.25, 96x96x3, 2 classes", _random("bdnet_vww")),
        Network("kws", "BD-Net, DS-CNN, 49x10x1, 12 classes", _random("bdnet_kws")),
        Network("mobilenet_v1_224", "BD-Net, MobileNet V1 1.0, 224x224x3, 1000 classes", _random("bdnet_mobilenet_v1")),
        Network("es_resnet20", "ES-BNN (tau = 2), ResNet-20, 32x32x3, 10 classes", _random("es_resnet20")),
    )
}


def find(name: str) -> Network:
    """The network of that name.

    Raises:
        UsageError: there is none; the nearest names are given.
    """
    if name not in NETWORKS:
        raise errors.unknown_name("network", name, NETWORKS)
    return NETWORKS[name]


def random_model(arch: str, **settings: Any) -> Model:
    """An architecture with random parameters, the same every time, the identity in none of its layers.

    Counts of fixed point and all memory are those of trained weights; what it predicts means nothing.
    """
    torch = errors.require("torch", extra="torch")
    from bdnet_deploy import models
    from bdnet_deploy.importers.torch import import_module

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        module = models.create(arch, **settings)
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and not name.endswith(
                ("conv.weight", "stem.weight", "classifier.weight", "temperature")
            ):
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
        module.eval()
    height, width, channels = module.input_shape
    return Model(arch, import_module(module, (1, channels, height, width), name=arch))
