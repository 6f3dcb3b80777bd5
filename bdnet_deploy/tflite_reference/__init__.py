"""A numpy interpreter of TensorFlow Lite files, with the operators of Larq Compute Engine.

It computes int8 and packed bits as the stock Larq Compute Engine interpreter does, bit for bit, and float32 within
rounding, and it shows every tensor, which that interpreter does not.

``evaluate(model, inputs)``
    the outputs, or with ``keep=True`` all tensors, by name.
``split(model)``
    every operator as a model of its own.
"""

from bdnet_deploy.tflite_reference.interpreter import KERNELS, evaluate
from bdnet_deploy.tflite_reference.splitting import Slice, split

__all__ = ["KERNELS", "Slice", "evaluate", "split"]
