"""Checkpoints with the names and layouts of the authors' own code, loaded into our modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import published_networks as theirs  # noqa: E402

from bdnet_deploy import checkpoint, models  # noqa: E402
from bdnet_deploy.errors import ModelFileError, UsageError  # noqa: E402
from bdnet_deploy.models.published import Rule, layout, negated, reshaped, unchanged  # noqa: E402

WIDTHS, STRIDES = (8, 16, 16, 32), (2, 1, 2, 2)
REACTNET_A = {"widths": WIDTHS, "strides": STRIDES, "input_size": 16, "classes": 5}
RESNET = {"width": 8, "blocks": (2, 1, 2), "input_size": 32, "classes": 5}
ADABIN = {"width": 4, "blocks": 2, "input_size": 8, "classes": 5}
QUICKNET = {"filters": (8, 16, 24), "blocks": (2, 1, 1), "input_size": 45, "classes": 5}

CASES = [
    ("reactnet_a", REACTNET_A, {"flat": True, "latent": True}),
    ("reactnet_a", REACTNET_A, {"flat": True, "latent": False}),
    ("reactnet_a", REACTNET_A, {"flat": False, "latent": True}),
    ("reactnet_18", RESNET, {"latent": True}),
    ("reactnet_18", RESNET, {"latent": False}),
    ("birealnet_18", RESNET, {"latent": True}),
    ("birealnet_18", RESNET, {"latent": False}),
    ("adabin_resnet20", ADABIN, {}),
    ("quicknet", QUICKNET, {}),
    ("quicknet_small", QUICKNET, {}),
    ("quicknet_large", QUICKNET, {}),
]


def published(arch: str, config: dict[str, Any], **kind: Any) -> tuple[theirs.State, Callable[[Any], Any]]:
    """A state dict as published, and the function of the network with it."""
    c = config
    if arch == "reactnet_a":
        state = theirs.reactnet_a_state(c["widths"], c["classes"], **kind)
        return state, lambda x: theirs.reactnet_a(state, x, c["widths"], c["strides"])
    if arch in ("reactnet_18", "birealnet_18"):
        react = arch == "reactnet_18"
        state = theirs.resnet_state(c["width"], c["blocks"], c["classes"], react=react, **kind)
        return state, lambda x: theirs.resnet(state, x, c["width"], c["blocks"], react=react)
    if arch == "adabin_resnet20":
        state = theirs.adabin_state(c["width"], c["blocks"], c["classes"], **kind)
        return state, lambda x: theirs.adabin(state, x, c["blocks"])
    state = theirs.quicknet_state(c["filters"], c["blocks"], c["classes"], **kind)
    return state, lambda x: theirs.quicknet(state, x, c["filters"], c["blocks"])


def assert_computes(module: torch.nn.Module, function: Callable[[Any], Any], size: int) -> None:
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        expected, got = function(x), module.double()(x)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize(("arch", "config", "kind"), CASES)
def test_loaded_it_computes_what_the_published_network_computes(
    arch: str, config: dict[str, Any], kind: dict[str, Any], tmp_path: Path
) -> None:
    state, function = published(arch, config, **kind)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "theirs.pth.tar")
    module = checkpoint.load_module(tmp_path / "theirs.pth.tar", arch, set_=config)
    # The names of ours go on working, and the second file rebuilds itself.
    checkpoint.save(module, tmp_path / "ours.pt")
    again = checkpoint.load_module(tmp_path / "ours.pt")
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    third = checkpoint.load_module(tmp_path / "weights.pt", arch, set_=config)
    for other in (again, third):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in module.state_dict().items())
    assert_computes(module, function, config["input_size"])


def test_keras_numbers_and_folders_do_not_matter(tmp_path: Path) -> None:
    plain, function = published("quicknet", QUICKNET)
    # Ten layers more: their order as numbers is not their order as text.
    other, _ = published("quicknet", QUICKNET, first=7, folders=True)
    assert "batch_normalization_10/batch_normalization_10/gamma:0" in other and not set(plain) & set(other)
    torch.save(other, tmp_path / "w.pt")
    assert_computes(checkpoint.load_module(tmp_path / "w.pt", "quicknet", set_=QUICKNET), function, 45)


def empty(state: theirs.State) -> dict[str, np.ndarray[Any, Any]]:
    """The shapes without the memory."""
    return {name: np.broadcast_to(np.float32(0), value.shape) for name, value in state.items()}


def full_size(arch: str) -> dict[str, np.ndarray[Any, Any]]:
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        # Values do not matter: shapes on the meta device.
        patch.setattr(theirs, "filler", lambda _seed: torch.randn)
        patch.setattr(torch, "randn", lambda *shape: torch.empty(shape, device="meta"))
        config = models.options(arch)
        kind = {"reactnet_a": {"flat": True, "latent": True}}.get(arch, {})
        if arch in ("reactnet_18", "birealnet_18"):
            kind = {"latent": True}
        return empty(published(arch, config, **kind)[0])


@pytest.mark.parametrize(
    "arch",
    [
        "adabin_resnet20",
        "birealnet_18",
        "quicknet",
        "quicknet_large",
        "quicknet_small",
        "reactnet_18",
        "reactnet_a",
    ],
)
def test_the_architecture_of_published_names_is_named(arch: str) -> None:
    """Of networks with equal names, QuickNet's sizes among them, the one with equal shapes."""
    found = checkpoint.Checkpoint(Path("model.th"), full_size(arch))
    with pytest.raises(UsageError) as error:
        checkpoint.build(found)
    assert f"names fit: {arch}; e.g. --arch {arch}" in str(error.value)
    assert "--set" not in str(error.value)


def test_of_another_size_the_architecture_is_named_with_options(tmp_path: Path) -> None:
    state, _ = published("adabin_resnet20", {**ADABIN, "blocks": 3})
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"names fit: adabin_resnet20; .* with other options \(--set \.\.\.\)"):
        checkpoint.load_module(tmp_path / "w.pt")
    state, _ = published("adabin_resnet20", ADABIN)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="nearest: --arch adabin_resnet20"):
        checkpoint.load_module(tmp_path / "w.pt")


@pytest.mark.parametrize(("arch", "config", "kind"), CASES)
def test_what_does_not_fit_is_told(arch: str, config: dict[str, Any], kind: dict[str, Any], tmp_path: Path) -> None:
    state, _ = published(arch, config, **kind)
    path = tmp_path / "w.pt"

    def refusal(state: theirs.State, **options: Any) -> str:
        torch.save(state, path)
        with pytest.raises(ModelFileError) as error:
            checkpoint.load_module(path, arch, set_={**config, **options})
        assert str(path) in str(error.value)
        return str(error.value)

    # A name of no layout: the names of the file and ours, as for any foreign state dict.
    text = refusal({**state, "head.weight": torch.zeros(1)})
    assert "missing: " in text and "unexpected: " in text and "translated" not in text
    # A layout that is known, sizes that are not.
    assert "classifier.weight is 5x" in (text := refusal(state, classes=6)) and "published names" in text
    # A parameter less.
    gone = next(name for name in state if name.endswith(("moving_mean:0", "running_mean")))
    text = refusal({name: value for name, value in state.items() if name != gone})
    assert "missing: " in text and "running_mean" in text and "unexpected" not in text


def test_other_orders_of_equal_size_are_not_taken(tmp_path: Path) -> None:
    """(kh, kw, I, O) has as many numbers as (O, I, kh, kw); only a vector may be reshaped."""
    state, _ = published("birealnet_18", RESNET, latent=True)
    name = "layer1.0.binary_conv.weights"
    state[name] = state[name].reshape(3, 3, 8, 8)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match=r"conv\.weight is 3x3x8x8 in the file and 8x8x3x3"):
        checkpoint.load_module(tmp_path / "w.pt", "birealnet_18", set_=RESNET)
    state[name] = state[name].reshape(-1, 1)[1:]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match=r"conv\.weight is 575x1 in the file"):
        checkpoint.load_module(tmp_path / "w.pt", "birealnet_18", set_=RESNET)


def test_the_layouts_of_two_networks_differ() -> None:
    state, _ = published("reactnet_18", RESNET, latent=True)
    arrays = {name: value.numpy() for name, value in state.items()}
    bireal, react = (models.published(arch) for arch in ("birealnet_18", "reactnet_18"))
    assert bireal is not None and react is not None
    assert bireal(arrays, {}) is None  # no shift has a place there
    assert react(arrays, {}) is not None
    assert models.published("bdnet_digits") is None


def test_rules() -> None:
    translate = layout(
        Rule(r"a(\d)\.w", r"b.\1.weight", reshaped),
        Rule(r"a(\d)\.s", r"b.\1.threshold", negated),
        Rule(r"a(\d)\.v", r"b.\1.weight", unchanged),
        Rule(r"a\d\.unused", None),
    )
    six = np.arange(6.0)
    shapes = {"b.1.weight": (2, 3, 1, 1), "b.1.threshold": (1, 6, 1, 1)}
    got = translate({"a1.w": six.reshape(6, 1), "a1.s": six, "a1.unused": six}, shapes)
    assert got is not None and list(got) == ["b.1.weight", "b.1.threshold"]
    assert np.array_equal(got["b.1.weight"], six.reshape(2, 3, 1, 1))
    assert np.array_equal(got["b.1.threshold"], -six.reshape(1, 6, 1, 1))
    # No such name of ours: left for the error to tell; another size: likewise.
    got = translate({"a2.w": six, "a1.w": six[1:]}, shapes)
    assert got is not None and got["b.2.weight"].shape == (6,) and got["b.1.weight"].shape == (5,)
    assert translate({"a1.w": six, "other": six}, shapes) is None
    assert translate({"a1.w": six, "a1.v": six}, shapes) is None  # two names for one of ours
