"""The architectures that bdnet-deploy can build by name. Importing this package does not import PyTorch."""

from __future__ import annotations

from bdnet_deploy.models.adabin_resnet20 import adabin_resnet20
from bdnet_deploy.models.bdnet_digits import bdnet_digits
from bdnet_deploy.models.bdnet_inverted import bdnet_efficientnet_lite0, bdnet_mobilenet_v2
from bdnet_deploy.models.bdnet_kws import bdnet_kws
from bdnet_deploy.models.bdnet_mobilenet_v1 import bdnet_mobilenet_v1, bdnet_vww
from bdnet_deploy.models.bdnet_resnet8 import bdnet_resnet8
from bdnet_deploy.models.birealnet_18 import birealnet_18, reactnet_18
from bdnet_deploy.models.bnext import bnext, es_bnext
from bdnet_deploy.models.es_binaryvit import es_binaryvit
from bdnet_deploy.models.es_resnets import es_resnet18, es_resnet20
from bdnet_deploy.models.quicknet import quicknet, quicknet_large, quicknet_small
from bdnet_deploy.models.reactnet_a import reactnet_a
from bdnet_deploy.models.registry import create, names, options, published, register

__all__ = [
    "adabin_resnet20",
    "bdnet_digits",
    "bdnet_efficientnet_lite0",
    "bdnet_kws",
    "bdnet_mobilenet_v1",
    "bdnet_mobilenet_v2",
    "bdnet_resnet8",
    "bdnet_vww",
    "birealnet_18",
    "bnext",
    "create",
    "es_binaryvit",
    "es_bnext",
    "es_resnet18",
    "es_resnet20",
    "names",
    "options",
    "published",
    "quicknet",
    "quicknet_large",
    "quicknet_small",
    "reactnet_18",
    "reactnet_a",
    "register",
]
