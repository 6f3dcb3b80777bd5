"""PyTorch modules to graphs, by recording one forward pass and recognising binary layers by their numbers.

Needs PyTorch: ``pip install 'bdnet-deploy[torch]'``.

=============  =====================================================================
``trace``      the recorded operators as data, and how to run them again
``dispatch``   seeing every operator that runs
``recorder``   one eager forward pass, written down
``aten``       which of PyTorch's operators act element by element, only move values, ...
``layout``     which axis of a tensor is the channel of the graph's map
``weights``    the levels of a layer's weights
``cone``       the elementwise function between two recorded tensors, ready to be probed
``quantizer``  sign and ternary activations, found by probing
``ties``       whether ``sign(0) = 0`` can matter
``piecewise``  affine, two-slope and limiting functions, found by probing
``moves``      views, slices, joins, repeats: where each element comes from
``reductions`` means, sums and maxima, found by probing
``layers``     convolution, linear, batch normalization and pooling to graph operators
``emitted``    a value of the graph with the layout, scale and padding that are still pending
``rules``      from one recorded tensor to graph operators
``build``      the way from the outputs back to the input: :func:`import_module`
=============  =====================================================================
"""

from __future__ import annotations

from bdnet_deploy.errors import require

require("torch", extra="torch")

from bdnet_deploy.importers.torch.build import Imported, import_module, import_recorded  # noqa: E402

__all__ = ["Imported", "import_module", "import_recorded"]
