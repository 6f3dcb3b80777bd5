"""Keras models as Larq's users write them; runs in an environment with TensorFlow, larq and larq-compute-engine.

``python keras_models.py FOLDER`` writes each as ``.h5``, ``.keras`` and ``.tflite``, one with batch normalization of
random statistics, and what Keras itself computes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import larq
import larq_compute_engine
import numpy as np
import tensorflow as tf
import tf_keras

layers = tf_keras.layers
BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}


def binary(x, filters, kernel=3, **options):
    return larq.layers.QuantConv2D(filters, kernel, **{"padding": "same", **BINARY, **options})(x)


def norm(x, **options):
    return layers.BatchNormalization(**options)(x)


def quicknet():
    """Stem, blocks with one and with zero padding, ReLU before batch normalization, a blurred transition, a head."""
    image = tf_keras.Input((32, 32, 3))
    x = layers.Activation("relu")(norm(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(image)))
    x = norm(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x), scale=False, center=False)
    x = norm(layers.Conv2D(64, 1, use_bias=False)(x))
    for _ in range(2):
        x = layers.add([x, norm(binary(x, 64, pad_values=1.0, activation="relu"), epsilon=1e-5)])
    x = layers.MaxPool2D(2, 1)(layers.Activation("relu")(x))
    x = layers.DepthwiseConv2D(3, padding="same", strides=2, use_bias=False, name="blur")(x)
    x = norm(layers.Conv2D(96, 1, use_bias=False)(x))
    x = layers.add([x, norm(binary(x, 96))])
    x = layers.add([x, norm(binary(x, 96, activation="relu"))])
    x = layers.GlobalAveragePooling2D()(layers.Activation("relu")(x))
    return tf_keras.Model(image, layers.Softmax()(layers.Dense(10)(x)))


def chain():
    """Signs right behind batch normalization: thresholds; a pool of bits, odd channels, dense binary layers."""
    image = tf_keras.Input((16, 16, 3))
    x = norm(layers.Conv2D(40, 3, padding="same")(image))
    x = norm(binary(x, 64, pad_values=1.0))
    x = norm(binary(x, 64, pad_values=1.0))
    x = larq.quantizers.SteSign()(x)
    x = layers.MaxPool2D(2, 2)(x)
    x = norm(binary(x, 33, pad_values=1.0, strides=2), scale=False)
    x = layers.Flatten()(layers.ReLU(6.0)(norm(binary(x, 32))))
    dense = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    x = norm(larq.layers.QuantDense(32, **dense)(x))
    return tf_keras.Model(image, larq.layers.QuantDense(10, **dense)(x))


def others():
    """What stands between binary layers in published models."""
    image = tf_keras.Input((16, 16, 3))
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(64, 3, padding="same", strides=2)(image))
    depthwise = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign", "use_bias": False}
    x = layers.add([x, norm(larq.layers.QuantDepthwiseConv2D(3, padding="same", **depthwise)(x))])
    y = binary(x, 64, pad_values=1.0, kernel_quantizer="ste_tern")
    x = layers.concatenate([x, norm(y)])
    gate = layers.Conv2D(8, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.multiply([x, layers.Conv2D(128, 1, activation="sigmoid")(gate)])
    x = layers.LeakyReLU(0.1)(norm(binary(x, 128, padding="valid")))
    x = layers.UpSampling2D(2)(tf.nn.depth_to_space(layers.AveragePooling2D(2)(x), 2))
    x = layers.Activation("swish")(layers.Activation("hard_sigmoid")(x))
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(layers.Cropping2D(1)(x))
    return tf_keras.Model(image, layers.Conv2D(12, 3)(x))


def ternary():
    """Ternary inputs, which Larq's converter gets wrong."""
    image = tf_keras.Input((8, 8, 32))
    return tf_keras.Model(image, binary(image, 32, input_quantizer="ste_tern"))


def with_code():
    image = tf_keras.Input((4, 4, 1))
    return tf_keras.Model(image, layers.Lambda(lambda x: x * 2.0)(image))


def randomize(model, rng):
    """Batch normalization with scales of both signs; a blur as weights."""
    ranges = {"gamma": (-1, 1), "beta": (-1, 1), "moving_mean": (-2, 2), "moving_variance": (0.5, 3)}
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            names = [w.name.split("/")[-1].split(":")[0] for w in layer.weights]
            layer.set_weights([rng.uniform(*ranges[n], w.shape) for n, w in zip(names, layer.weights)])
        if layer.name == "blur":
            window = np.outer([1, 2, 1], [1, 2, 1]) / 16
            layer.set_weights([np.repeat(window[:, :, None, None], layer.weights[0].shape[2], 2)])


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for make in (quicknet, chain, others, ternary, with_code):
        tf_keras.utils.set_random_seed(1)
        model, name = make(), folder / make.__name__
        randomize(model, rng)
        model.save(f"{name}.h5")
        model.save(f"{name}.keras")
        if make is with_code:
            continue
        name.with_suffix(".tflite").write_bytes(larq_compute_engine.convert_keras_model(model))
        x = rng.normal(size=(4, *model.input_shape[1:])).astype(np.float32)
        np.savez(f"{name}.npz", x=x, y=model(x).numpy())
        if make in (quicknet, chain):
            whole = larq_compute_engine.convert_keras_model(
                model, inference_input_type=tf.int8, inference_output_type=tf.int8,
                experimental_default_int8_range=(-6.0, 6.0),
            )  # fmt: skip
            Path(f"{name}_int8.tflite").write_bytes(whole)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
