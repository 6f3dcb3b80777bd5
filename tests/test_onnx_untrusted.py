"""Files of ours that were damaged or edited: errors of ours, no crashes, no long work; external data stay in their folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from export_graphs import Net, bdnet  # noqa: E402
from onnx_layers import assert_same  # noqa: E402

import bdnet_deploy  # noqa: E402
from bdnet_deploy.errors import BdnetError, ModelFileError  # noqa: E402
from bdnet_deploy.export.foreign import METADATA_KEY  # noqa: E402
from bdnet_deploy.export.onnx import write  # noqa: E402
from bdnet_deploy.export.onnx.functions import digest  # noqa: E402
from bdnet_deploy.graph import DType, Graph, MaxPool, Pad, Upsample, difference, evaluate  # noqa: E402
from bdnet_deploy.importers.artifact import EditedFileError  # noqa: E402
from bdnet_deploy.importers.onnx import read_graph, split_layers  # noqa: E402
from bdnet_deploy.model import Model  # noqa: E402
from bdnet_deploy.passes import to_real  # noqa: E402
from bdnet_deploy.peers import onnxruntime  # noqa: E402


def resealed(model: Any) -> bytes:
    """With the digest of what it holds now, as a patient forger would write it."""
    entry = next(p for p in model.metadata_props if p.key == METADATA_KEY)
    content = json.loads(entry.value)
    content["functions"]["sha256"] = digest(model)
    entry.value = json.dumps(content)
    return bytes(model.SerializeToString())


def small() -> Graph:
    net = Net(0, 4, 4, 8)
    y = net.affine(net.conv(net.ternarize(net.x), 8, 3, padding=(1, 1, 1, 1)))
    y = net.add(Pad((1, 0, 0, 0, 0, 0)), net.add(Upsample(), net.add(MaxPool(), y)))
    return net.done(y).graph


@pytest.mark.parametrize("reseal", [False, True])
def test_random_damage(reseal: bool) -> None:
    data = write(small()).data
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        content = bytes(damaged)
        if reseal:
            try:
                content = resealed(onnx.load_model_from_string(content))
            except Exception:  # not even protobuf, or no metadata of ours
                continue
        with contextlib.suppress(ModelFileError):
            read_graph(content)
        with contextlib.suppress(ModelFileError):
            split_layers(content)


def _attribute(model: Any, kind: str, name: str) -> Any:
    node = next(n for n in model.graph.node if n.op_type.startswith(f"{kind}__"))
    return next(a for a in node.attribute if a.name == name)


def _ints(kind: str, name: str, values: list[int]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        attribute = _attribute(model, kind, name)
        attribute.ints[:] = values

    return change


def _text(kind: str, name: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        attribute = _attribute(model, kind, name)
        if attribute.strings:
            attribute.strings[0] = value.encode()
        else:
            attribute.s = value.encode()

    return change


def _drop(field: str) -> Callable[[Any], None]:
    return lambda model: model.graph.ClearField(field)


def _loop(model: Any) -> None:
    model.graph.node[1].input[0] = model.graph.node[2].output[0]


def _kind(model: Any) -> None:
    model.graph.node[2].op_type = "lut__f32_map"


def _twice(model: Any) -> None:
    model.graph.node.append(model.graph.node[1])


def _shape(model: Any) -> None:
    model.graph.initializer[-1].dims[:] = [1 << 40, 1 << 40]


def _port(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def _unpacked(model: Any) -> None:
    planes = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT8)
    planes.raw_data = planes.raw_data[:-1]


HUGE = 1 << 23
CHANGES: dict[str, Callable[[Any], None]] = {
    "factors": _ints("upsample", "factors", [HUGE, HUGE]),
    "window": _ints("max_pool", "kernel", [HUGE, HUGE]),
    "padding": _ints("pad", "padding", [1 << 60, 0, 0, 0, 0, 0]),
    "negative": _ints("conv2d", "strides", [-1, 0]),
    "few": _ints("conv2d", "strides", [1]),
    "result": _text("max_pool", "result", "f32[1,99999999,99999999,1]"),
    "operand": _text("max_pool", "operands", "f32[1,4,4,9]"),
    "no type": _text("max_pool", "result", "f32[" + "9" * 100 + "]"),
    "dtype": _text("max_pool", "result", "q99[1,2,2,8]"),
    "no initializers": _drop("initializer"),
    "no outputs": _drop("output"),
    "no inputs": _drop("input"),
    "no nodes": _drop("node"),
    "loop": _loop,
    "unknown operator": _kind,
    "twice": _twice,
    "shape": _shape,
    "port": _port,
    "planes": _unpacked,
}


@pytest.mark.parametrize("name", CHANGES)
def test_forged_files(name: str) -> None:
    """Also where the digest was made anew; without that they are known as changed, but for what are constants."""
    model = onnx.load_model_from_string(write(small()).data)
    CHANGES[name](model)
    if name in ("no initializers", "shape", "planes"):
        assert digest(model) == json.loads(model.metadata_props[0].value)["functions"]["sha256"]
    else:
        with pytest.raises(EditedFileError):
            read_graph(model.SerializeToString())
    changed = resealed(model)
    if name in ("no outputs", "no inputs"):  # nothing of the network is left to be wrong
        with contextlib.suppress(ModelFileError):
            read_graph(changed)
        return
    with pytest.raises(ModelFileError):
        read_graph(changed)


def test_a_replaced_function_is_not_trusted(tmp_path: Path) -> None:
    """The name says sign, the body another threshold: the graph is made of what the file computes."""
    graph = bdnet(0).graph
    model = onnx.load_model_from_string(write(graph).data)
    body = next(f for f in model.functions if f.name.startswith("two_slope__"))
    last = body.node[-1]
    assert last.op_type == "Add"
    last.op_type = "Sub"  # the bias
    path = tmp_path / "edited.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EditedFileError, match="changed after"):
        read_graph(path)
    pytest.importorskip("torch")
    loaded = bdnet_deploy.load(path)
    assert "changed after bdnet-deploy wrote it" in " ".join(loaded.notes)
    x = np.random.default_rng(0).normal(size=(1, *graph.inputs[0].type.shape[1:])).astype(np.float32)
    real = loaded.float_graph()
    got = evaluate(real, [x])[real.outputs[0].name]
    expected = onnxruntime.run(path.read_bytes(), x)[0]
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(got, evaluate(graph, [x])[graph.outputs[0].name], rtol=1e-2, atol=1e-2)


def test_functions_that_call_each_other(tmp_path: Path) -> None:
    """Edited, so that the general importer inlines them."""
    pytest.importorskip("torch")
    model = onnx.load_model_from_string(write(small()).data)
    bodies = list(model.functions)[:2]
    for body, other in zip(bodies, [*bodies[1:], bodies[0]], strict=True):
        node = onnx.helper.make_node(other.name, list(body.input), list(body.output), domain=other.domain)
        del body.node[:]
        body.node.extend([node])
    path = tmp_path / "cyclic.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EditedFileError):
        read_graph(path)
    with pytest.raises(BdnetError):
        bdnet_deploy.load(path)


def test_another_version_of_the_functions() -> None:
    model = onnx.load_model_from_string(write(small()).data)
    content = json.loads(model.metadata_props[0].value)
    content["functions"]["version"] = 99
    model.metadata_props[0].value = json.dumps(content)
    with pytest.raises(EditedFileError, match="version 99"):
        read_graph(model.SerializeToString())


# -- external data ----------------------------------------------------------------------------------------------------


def _external(folder: Path) -> tuple[Graph, Path, Path]:
    graph = bdnet(0).graph
    written = write(graph, limit=1000)
    assert list(written.external) == [f"{graph.name}.onnx.data"]
    assert sum(written.sizes.values()) == len(written.data) + sum(map(len, written.external.values()))
    (name,) = written.external
    (folder / "m.onnx").write_bytes(written.data)
    (folder / name).write_bytes(written.external[name])
    return graph, folder / "m.onnx", folder / name


def test_large_files_have_their_weights_beside_them(tmp_path: Path) -> None:
    graph, path, data = _external(tmp_path)
    read, _, _ = read_graph(path)
    assert difference(graph, read) is None
    assert_same(graph, write(graph).data)
    import onnxruntime as ort

    onnx.checker.check_model(str(path), full_check=True)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(2, *graph.inputs[0].type.shape[1:])).astype(np.float32)
    beside = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert np.array_equal(beside, onnxruntime.run(write(graph).data, x)[0])
    layers, inside = split_layers(path), split_layers(write(graph).data)
    assert [layer.model for layer in layers] == [layer.model for layer in inside]
    with pytest.raises(ModelFileError, match="in another file"):
        read_graph(path.read_bytes())
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(ModelFileError):
        read_graph(path)
    data.unlink()
    with pytest.raises(ModelFileError, match="missing"):
        read_graph(path)
    with pytest.raises(BdnetError, match="missing"):
        bdnet_deploy.load(path)


@pytest.mark.parametrize(
    "where",
    [
        "C:secret",
        "m.onnx.data:stream",
        "..\\secret",
        "../secret",
        "/etc/hostname",
        "sub/../../secret",
        "",
        ".",
        "..",
        "a\0b",
        "link",
    ],
)
def test_external_data_stay_in_the_folder(where: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    _, path, data = _external(folder)
    (tmp_path / "secret").write_bytes(data.read_bytes())
    if where == "link":
        try:
            Path(folder / "link").symlink_to(tmp_path / "secret")
        except OSError:
            pytest.skip("no links here")
    model = onnx.load_model_from_string(path.read_bytes())
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = where
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"outside|missing|damaged"):
        read_graph(path)


def test_external_data_are_named_after_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exports of one name in one folder have different constants."""
    monkeypatch.setitem(write.__kwdefaults__, "limit", 1000)
    models = {f"{seed}.onnx": Model("model", to_real(bdnet(seed).graph)) for seed in (0, 1)}
    for name, model in models.items():
        assert [p.name for p in model.export("onnx", tmp_path / name).paths] == [name, f"{name}.data"]
    for name, model in models.items():
        assert difference(model.float_graph(), read_graph(tmp_path / name)[0]) is None


def test_damaged_records_of_external_data(tmp_path: Path) -> None:
    _, path, _ = _external(tmp_path)
    for key, value in (("offset", "-1"), ("offset", "9" * 30), ("length", "4"), ("offset", "99999999")):
        model = onnx.load_model_from_string(path.read_bytes())
        tensor = next(t for t in model.graph.initializer if t.external_data)
        next(e for e in tensor.external_data if e.key == key).value = value
        changed = tmp_path / "changed.onnx"
        changed.write_bytes(model.SerializeToString())
        with pytest.raises(ModelFileError):
            read_graph(changed)


def test_integer_inputs_are_typed() -> None:
    net = Net(0, 4, 4, 3)
    raw = net.graph.input("raw", (1, 4, 4, 3), DType.U8)
    net.graph.inputs = [raw]
    net.done(net.conv(raw, 5, 3))
    assert_same(net.graph, write(net.graph).data)
