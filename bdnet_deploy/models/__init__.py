"""The architectures that bdnet-deploy can build by name. Importing this package does not import PyTorch."""

from __future__ import annotations

from bdnet_deploy.models.bdnet_digits import bdnet_digits
from bdnet_deploy.models.bdnet_mobilenet_v1 import bdnet_mobilenet_v1
from bdnet_deploy.models.registry import create, names, options, register

__all__ = ["bdnet_digits", "bdnet_mobilenet_v1", "create", "names", "options", "register"]
