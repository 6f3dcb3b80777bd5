"""A ``.tflite`` of ours carries its graph: what is read is what was written, in every operator and to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_graphs import Net, bdnet
from random_networks import random_network

import bdnet_deploy
from bdnet_deploy.errors import BdnetError, ModelFileError
from bdnet_deploy.export.tflite import write
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.graph import Conv2d, DType, Graph, Sign, Ternarize, difference
from bdnet_deploy.importers.artifact import EditedFileError
from bdnet_deploy.importers.tflite import read_graph, split_layers
from bdnet_deploy.importers.tflite.reader import read
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import float_graph
from bdnet_deploy.passes import to_float, to_real

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def names(graph: Graph) -> list[tuple[str, str]]:
    values = [(v.name, "") for v in (*graph.inputs, *graph.constants())]
    return values + [(node.name, node.source) for node in graph.nodes]


def assert_restored(graph: Graph, data: bytes) -> None:
    found = read_graph(data)[0]
    assert difference(graph, found) is None
    assert names(graph) == names(found)
    assert (graph.reasons, graph.lines, graph.unfinished) == (found.reasons, found.lines, found.unfinished)
    assert found.name == graph.name
    assert difference(graph, to_float(to_real(found))) is None


def test_random_networks() -> None:
    for seed in range(300):
        graph, _ = float_graph(random_network(seed).graph)
        assert_restored(graph, write(graph).data)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_random_networks(part: int) -> None:
    for seed in range(2000 + 300 * part, 2300 + 300 * part):
        graph, _ = float_graph(random_network(seed).graph)
        assert_restored(graph, write(graph).data)


def test_zoo() -> None:
    torch = pytest.importorskip("torch")
    from torch_modules import randomize

    from bdnet_deploy import models
    from bdnet_deploy.importers.torch import import_module
    from bdnet_deploy.models.small import SMALL

    assert sorted(SMALL) == models.names()
    for arch, settings in SMALL.items():
        torch.manual_seed(6)
        module = randomize(models.create(arch, **settings)).eval()
        height, width, channels = module.input_shape
        graph, _ = float_graph(import_module(module, (1, channels, height, width), name=arch))
        assert_restored(graph, write(graph).data)


def test_what_operators_do_not_give_back_is_stored_beside_them() -> None:
    """Negated -0.0, numbers that vanish when halved, thresholds beyond every sum, halves of ubits' thresholds."""
    net = Net(0, 3, 3, 8)
    tiny = np.array([1e-45, -0.0, 0.0, 1.0, -1e-45, np.finfo(np.float32).max, 3.0, -2.0], np.float32)
    t = net.add(Ternarize(), net.x, net.constant(tiny * np.float32(0)), net.constant(np.abs(tiny)))
    y = net.affine(net.conv(t, 8))
    assert y.node is not None
    node = y.node
    node.inputs = (node.inputs[0], net.constant(tiny), net.constant(tiny[::-1].copy()))
    far = np.array([-(2**31), 2**31 - 1, -5, 0, 1, 2, 8, 9])
    ubits = net.add(Sign(DType.UBIT), y, net.constant(tiny))
    a = net.add(Sign(), net.conv(ubits, 8), net.constant(far, DType.I32))
    b = net.add(Sign(), net.conv(a, 8), net.constant(far, DType.I32))
    c = net.add(Sign(), net.depthwise(b), net.constant(far, DType.I32))
    d = net.add(Ternarize(), net.conv(c, 8), net.constant(far, DType.I32), net.constant(far, DType.I32))
    net.done(d)
    found = read_graph(write(net.graph).data)[0]
    assert difference(net.graph, found) is None


def test_loading_a_file_of_ours(tmp_path: Path) -> None:
    graph = bdnet(1).graph
    io = IODescription.from_settings({"mean": 2.0, "std": 3.0}, ["a", "b"], (12, 12, 3))
    path = tmp_path / "net.tflite"
    path.write_bytes(write(graph, io=io, meta={"made_by": "a test"}).data)
    model = bdnet_deploy.load(path)
    assert model.io == io and model.notes == []
    assert names(model.graph) == names(graph)
    assert difference(model.graph, to_real(graph)) is None
    assert read_graph(path)[1:] == (io, {"made_by": "a test"})
    assert write(read_graph(path)[0], io=io, meta={"made_by": "a test"}).data == path.read_bytes()


def test_edited_files_are_read_operator_by_operator(tmp_path: Path) -> None:
    """Whatever the operators read besides the graph's own constants is under the digest."""
    net = Net(0, 6, 6, 40)
    y = net.conv(net.sign(net.x), 32, 3, strides=(2, 2), padding=(1, 1, 1, 1))
    data = write(net.done(net.affine(y)).graph).data
    edits = []
    model = from_bytes(data)
    border = next(t for t in model.tensors if t.name.endswith("/border"))
    assert border.data is not None
    border.data = border.data + 1
    edits.append(to_bytes(model))
    model = from_bytes(data)
    model.operators[-1].inputs = model.operators[-1].inputs[::-1]
    edits.append(to_bytes(model))
    model = from_bytes(data)
    pad = next(op for op in model.operators if op.name == "PADV2")
    fill = model.tensors[pad.inputs[2]]
    fill.data = np.full_like(fill.data, 5)
    edits.append(to_bytes(model))
    for edited in edits:
        with pytest.raises(EditedFileError, match="edited"):
            read_graph(edited)
    imported = read(edits[1])
    assert any("was edited" in note for note in imported.notes)
    path = tmp_path / "edited.tflite"
    path.write_bytes(edits[1])
    assert any("was edited" in note for note in bdnet_deploy.load(path).notes)


# -- hostile files ------------------------------------------------------------------------------------------------------


def changed(data: bytes, change: Any) -> bytes:
    """The file with another stored graph."""
    model = from_bytes(data)
    description = json.loads(model.metadata["bdnet_deploy"])
    change(description["structure"])
    model.metadata["bdnet_deploy"] = json.dumps(description).encode()
    return to_bytes(model)


HUGE = 1 << 40
#: Changes of the stored graph that must end in an error, quickly.
ATTACKS: dict[str, Any] = {
    "no digest": lambda s: s.pop("digest"),
    "shape": lambda s: s["inputs"][0].__setitem__(1, [1, HUGE, HUGE, 3]),
    "negative shape": lambda s: s["inputs"][0].__setitem__(1, [1, -3, -3, 3]),
    "dtype": lambda s: s["inputs"][0].__setitem__(2, "f16"),
    "name twice": lambda s: s["nodes"][0].__setitem__(3, s["nodes"][1][3]),
    "name": lambda s: s["nodes"][0].__setitem__(3, 7),
    "long name": lambda s: s["nodes"][0].__setitem__(3, "x" * 100_000),
    "operator": lambda s: s["nodes"][0].__setitem__(0, "system"),
    "operand": lambda s: s["nodes"][0].__setitem__(2, [0, 10**9]),
    "later operand": lambda s: s["nodes"][0].__setitem__(2, [0, len(s["inputs"]) + len(s["constants"]) + 1]),
    "negative operand": lambda s: s["nodes"][0].__setitem__(2, [-1, -1]),
    "true operand": lambda s: s["nodes"][0].__setitem__(2, [True, True]),
    "attribute": lambda s: s["nodes"][0].__setitem__(1, {"strides": "2"}),
    "padding": lambda s: s["nodes"][0].__setitem__(1, {"padding": [HUGE] * 4}),
    "upsample": lambda s: s["nodes"].__setitem__(0, ["upsample", {"factors": [HUGE, HUGE]}, [0], s["nodes"][0][3], ""]),
    "pad": lambda s: s["nodes"].__setitem__(0, ["pad", {"padding": [HUGE] * 6}, [0], s["nodes"][0][3], ""]),
    "repeat": lambda s: s["nodes"].__setitem__(0, ["repeat", {"times": HUGE}, [0], s["nodes"][0][3], ""]),
    "window": lambda s: s["nodes"].__setitem__(0, ["max_pool", {"kernel": [HUGE, 1]}, [0], s["nodes"][0][3], ""]),
    "reshape": lambda s: s["nodes"].__setitem__(
        0, ["reshape", {"shape": [1, 1 << 32, 1 << 32, 1]}, [0], s["nodes"][0][3], ""]
    ),
    "constant": lambda s: s["constants"][0].__setitem__(1, [3]),
    "record": lambda s: s["constants"][0].__setitem__(3, {"form": "os.system"}),
    "no record": lambda s: s["constants"][0].__setitem__(3, None),
    "fill": lambda s: (
        s["constants"][1].__setitem__(1, [1 << 25]) or s["constants"][1].__setitem__(3, {"form": "fill", "value": 0})
    ),
    "tensor": lambda s: s["constants"][0].__setitem__(3, {"form": "same", "tensors": [10**6]}),
    "tensor number": lambda s: s["constants"][0].__setitem__(3, -1),
    "true tensor": lambda s: s["constants"][0].__setitem__(3, True),
    "no name": lambda s: s["constants"][0].__setitem__(0, 7.5),
    "tensors": lambda s: s["constants"][0].__setitem__(3, {"form": "planes", "tensors": []}),
    "output": lambda s: s.__setitem__("outputs", [10**6]),
    "reasons": lambda s: s.__setitem__("reasons", {"a": 1}),
    "nothing": lambda s: s.clear(),
}


FITS = "the digest of whoever changed the file"


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_graphs_are_refused(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdnet_deploy.importers.tflite.own.digest", lambda model, constants: FITS)
    data = changed(write(bdnet(2).graph).data, lambda s: (s.__setitem__("digest", FITS), ATTACKS[attack](s)))
    with pytest.raises(ModelFileError):
        read_graph(data)


def test_damaged_structures_never_crash() -> None:
    """Random changes of the stored graph and of constants: an error of ours, or a graph."""
    rng = np.random.default_rng(5)
    net = bdnet(4)
    data = write(net.graph).data
    start = data.index(b'"structure"')
    end = start + data[start:].index(b'"values"')
    refused = 0
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(start, end))] = int(rng.integers(32, 127))
        try:
            read_graph(bytes(damaged))
            split_layers(bytes(damaged))
        except BdnetError:
            refused += 1
    assert refused > 100


def test_geometry_travels() -> None:
    """Every attribute that is not a default."""
    net = Net(0, 7, 6, 8)
    op = Conv2d((2, 1), (1, 0, 2, 1), -1, (1, 2), 2)
    graph = net.done(net.add(op, net.sign(net.x), net.weights(4, 3, 2, 4))).graph
    assert read_graph(write(graph).data)[0].nodes[-1].op == op
