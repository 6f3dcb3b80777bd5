"""Trainable binary and 1.58-bit layers (needs PyTorch: ``pip install 'bdnet-deploy[torch]'``).

Every forward pass is plain tensor code, so that a recorder of operators, ``torch.export`` and ONNX exporters
see through it.
"""

from __future__ import annotations

from bdnet_deploy.errors import require

require("torch", extra="torch")

from bdnet_deploy.nn.activations import RSign, Sign, TernaryActivation  # noqa: E402
from bdnet_deploy.nn.adabin import AdaBinActivation, AdaBinConv2d, Maxout  # noqa: E402
from bdnet_deploy.nn.annealed import AnnealedConv2d, anneal, not_yet_binary  # noqa: E402
from bdnet_deploy.nn.block import BDBlockHalf  # noqa: E402
from bdnet_deploy.nn.conv import BinaryConv2d  # noqa: E402
from bdnet_deploy.nn.dual_binary import DualBinaryConv2d  # noqa: E402
from bdnet_deploy.nn.es_block import ESBlockHalf  # noqa: E402
from bdnet_deploy.nn.padding import SamePad2d, same_padding  # noqa: E402
from bdnet_deploy.nn.probabilities import BinaryProbabilities  # noqa: E402
from bdnet_deploy.nn.quantizers import sign_ste, ternary_ste, ternary_weight_ste  # noqa: E402
from bdnet_deploy.nn.residual import BroadcastResidual  # noqa: E402
from bdnet_deploy.nn.rprelu import RPReLU  # noqa: E402

__all__ = [
    "AdaBinActivation",
    "AdaBinConv2d",
    "AnnealedConv2d",
    "BDBlockHalf",
    "BinaryConv2d",
    "BinaryProbabilities",
    "BroadcastResidual",
    "DualBinaryConv2d",
    "ESBlockHalf",
    "Maxout",
    "RPReLU",
    "RSign",
    "SamePad2d",
    "Sign",
    "TernaryActivation",
    "anneal",
    "not_yet_binary",
    "same_padding",
    "sign_ste",
    "ternary_ste",
    "ternary_weight_ste",
]
