"""PyTorch modules to graphs, by recording one forward pass and recognising binary layers by their numbers.

Needs PyTorch: ``pip install 'bdnet-deploy[torch]'``.

=============  =====================================================================
``trace``      the recorded operators as data, and how to run them again
``recorder``   one eager forward pass, written down
``aten``       which of PyTorch's operators act element by element, only move values, ...
``weights``    the levels of a layer's weights
``cone``       the elementwise function between two recorded tensors, ready to be probed
``quantizer``  sign and ternary activations, found by probing
``piecewise``  affine and two-slope activations, found by probing
``moves``      repeats, means, reshapes, found by probing
``layers``     convolution, linear, batch normalization and pooling to graph operators
``rules``      from one recorded tensor to graph operators
``build``      the way from the outputs back to the input: :func:`import_module`
=============  =====================================================================
"""

from __future__ import annotations

from bdnet_deploy.errors import require

require("torch", extra="torch")

from bdnet_deploy.importers.torch.build import import_module  # noqa: E402

__all__ = ["import_module"]
