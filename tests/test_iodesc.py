"""The I/O description: canonical JSON, preprocessing against torchvision's and Pillow's definitions in numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bdnet_deploy.errors import ModelFileError, UsageError
from bdnet_deploy.iodesc import InputDescription, IODescription, OutputDescription

RNG = np.random.default_rng(0)


def test_json_is_canonical_and_comes_back() -> None:
    description = IODescription(
        (
            InputDescription("image", (4, 6, 3), "u8", "NCHW", "rgb", [8, 9], (4, 6), [1, 2, 3], np.float32([4, 5, 6])),
            InputDescription("audio", (16, 1), scale=0.5, zero_point=1),
        ),
        (OutputDescription("scores", ["a", "b"]), OutputDescription("other")),
    )
    text = description.to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert IODescription.from_json(text) == description
    assert IODescription.from_json(text).to_json() == text
    assert hash(description) == hash(IODescription.from_json(text))


DAMAGED = [
    "",
    "[]",
    "3",
    "{",
    '{"inputs":3}',
    '{"inputs":[{"shape":[0]}]}',
    '{"inputs":[{"x":1}]}',
    '{"no":1}',
    "[" * 10**5,
    '{"inputs":[{"shape":[4],"scale":NaN}]}',
    '{"inputs":[{"shape":[4],"scale":1e999}]}',
    '{"outputs":[{"labels":3}]}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_json(text: str) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        IODescription.from_json(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtyp": "u8"}, "dtype"),
        ({"dtype": "u16"}, "u8"),
        ({"layout": "HWC"}, "NHWC"),
        ({"color": "rbg"}, "rgb"),
        ({"mean": [1, 2]}, "2 values for 3 channels"),
        ({"mean": "x"}, "number"),
        ({"std": 0}, "not 0"),
        ({"scale": float("inf")}, "finite"),
        ({"mean": 1, "scale": 2}, "not both"),
        ({"shape": [4, 4.5, 3]}, "whole numbers"),
        ({"shape": [1] * 5}, "1 to 4"),
        ({"resize": [1, 2, 3]}, "pair"),
        ({"resize": 8, "shape": [3]}, "image"),
        ({"name": ""}, "name"),
        ({"inputs": [], "no": 1}, "inputs"),
        ({"inputs": 3}, "lists"),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        IODescription.from_settings(settings, None, (4, 4, 3))
    assert message in str(error.value)


def test_scale_and_zero_point() -> None:
    description = IODescription.from_settings({"dtype": "u8", "scale": 1 / 8, "zero_point": 8}, None, (8, 8, 1))
    raw = RNG.integers(0, 17, (5, 8, 8, 1)).astype(np.uint8)
    expected = raw.astype(np.float32) / 8 - 1
    for given in (raw, raw[..., 0]):
        got = description.preprocess(given)
        assert got.dtype == np.float32
        assert (got == expected).all()
    for given in (raw[0], raw[0, ..., 0]):
        assert (description.preprocess(given) == expected[:1]).all()


def test_mean_and_std_per_channel_and_layout() -> None:
    mean, std = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
    settings = {"dtype": "u8", "layout": "NCHW", "mean": mean.tolist(), "std": std}
    description = IODescription.from_settings(settings, None, (4, 6, 3))
    raw = RNG.integers(0, 256, (2, 3, 4, 6)).astype(np.uint8)
    expected = (raw.transpose(0, 2, 3, 1).astype(np.float64) - mean) / std
    np.testing.assert_allclose(description.preprocess(raw), expected, rtol=1e-6, atol=1e-6)
    assert description.preprocess(raw[0]).shape == (1, 4, 6, 3)


def test_nothing_described_changes_nothing() -> None:
    raw = RNG.standard_normal((2, 4, 6, 3)).astype(np.float32)
    description = IODescription((InputDescription(shape=(4, 6, 3)),))
    assert np.array_equal(description.preprocess(raw), raw)
    assert np.array_equal(description.preprocess(raw.astype(np.float64)), raw)


def test_vectors_and_single_channel_batches() -> None:
    vector = InputDescription(shape=(5,), scale=2)
    assert vector.preprocess(np.ones(5, np.float32)).shape == (1, 5)
    assert (vector.preprocess(np.ones((3, 5), np.float32)) == 2).all()
    gray = InputDescription(shape=(4, 6, 1), layout="NCHW")
    for shape in ((4, 6), (1, 4, 6), (1, 1, 4, 6)):
        assert gray.preprocess(np.ones(shape, np.float32)).shape == (1, 4, 6, 1)
    assert gray.preprocess(np.ones((3, 4, 6), np.float32)).shape == (3, 4, 6, 1)


def test_wrong_samples_are_explained() -> None:
    image = InputDescription(shape=(4, 6, 3), dtype="u8")
    with pytest.raises(UsageError, match="astype"):
        image.preprocess(np.zeros((4, 6, 3), np.float32))
    with pytest.raises(UsageError, match="resize or crop"):
        image.preprocess(np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(UsageError, match="axes"):
        image.preprocess(np.zeros(6, np.uint8))
    with pytest.raises(UsageError, match="cannot cut"):
        InputDescription(shape=(4, 4, 3), crop=(4, 4)).preprocess(np.zeros((3, 9, 3), np.float32))


def test_resize_equals_torch_antialiased_and_crop_takes_the_middle() -> None:
    torch = pytest.importorskip("torch")
    raw = RNG.uniform(0, 255, (2, 23, 31, 3)).astype(np.float32)
    for size, resize in (((11, 14), 11), ((40, 17), (40, 17)), ((23, 31), 23)):
        peer = torch.nn.functional.interpolate(
            torch.from_numpy(raw).permute(0, 3, 1, 2), size, mode="bilinear", antialias=True, align_corners=False
        )
        got = InputDescription(shape=(*size, 3), resize=resize).preprocess(raw)
        np.testing.assert_allclose(got, peer.permute(0, 2, 3, 1).numpy(), atol=2e-3)
    bytes_in = raw.astype(np.uint8)
    cropped = InputDescription(shape=(8, 10, 3), dtype="u8", resize=12, crop=(8, 10)).resample(bytes_in)
    assert cropped.dtype == np.uint8
    whole = InputDescription(shape=(12, 16, 3), dtype="u8", resize=12).resample(bytes_in)
    assert np.array_equal(cropped, whole[:, 2:10, 3:13])
