"""``.pt2`` files: what is read, what is refused, and that nothing in them runs."""

from __future__ import annotations

import json
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from program_styles import Conv, by_mean_abs  # noqa: E402

import bdnet_deploy  # noqa: E402
from bdnet_deploy.errors import BdnetError, ModelFileError, UnsupportedError  # noqa: E402
from bdnet_deploy.importers.pt2.operators import ATEN  # noqa: E402

Edit = Callable[[dict[str, Any]], None]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(4, "detach", by_mean_abs)
        self.bn = torch.nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = x * 2
        a, b = torch.nn.functional.relu(self.bn(self.conv(x)), inplace=True).chunk(2, 1)
        return torch.cat([b, a], 1).view(x.size(0), x.size(1), -1).amax(2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.manual_seed(1)
    torch.export.save(torch.export.export(Net().eval(), (torch.randn(1, 4, 6, 6),)), path)
    return path


def rewritten(saved: Path, target: Path, edits: dict[str, Edit | bytes | None]) -> Path:
    """A copy with some entries (by the end of their names) changed, or left out."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            for end, edit in edits.items():
                if name.endswith(end):
                    if edit is None or isinstance(edit, bytes):
                        data = edit  # type: ignore[assignment]
                    else:
                        content = json.loads(data)
                        edit(content)
                        data = json.dumps(content).encode()
            if data is not None:
                new.writestr(name, data)
    return target


def refused(path: Path, kind: type[BdnetError], *says: str) -> None:
    with pytest.raises(kind) as info:
        bdnet_deploy.load(path)
    assert info.value.exit_code == 1
    for part in (path.name, *says):
        assert part in str(info.value), str(info.value)


def nodes(program: dict[str, Any]) -> list[dict[str, Any]]:
    return program["graph_module"]["graph"]["nodes"]


def test_places_name_module_node_and_line(saved: Path, tmp_path: Path) -> None:
    def break_it(program: dict[str, Any]) -> None:
        node = next(n for n in nodes(program) if "conv2d" in n["target"])
        node["target"] = "torch.ops.aten.conv2d_by_magic.default"

    path = rewritten(saved, tmp_path / "m.pt2", {"model.json": break_it})
    refused(
        path,
        UnsupportedError,
        "aten.conv2d_by_magic.default",
        "conv (aten.conv2d_by_magic.default 'conv2d', program_styles.py:",
    )


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",
        "torch.load",
        "_operator.methodcaller",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.rand.default",
        "torch.ops.aten.conv2d.__init__",
        "torch.ops.aten.__class__.default",
        "torch.ops.higher_order.cond",
        "torch.ops.mine.layer.default",
        "builtins.eval",
        "",
    ],
)
def test_only_tensor_functions_are_called(target: str, saved: Path, tmp_path: Path) -> None:
    def call(program: dict[str, Any]) -> None:
        nodes(program)[0]["target"] = target

    says = "control flow that depends on the data" if "cond" in target else "is not supported"
    refused(rewritten(saved, tmp_path / "m.pt2", {"model.json": call}), UnsupportedError, says)


def test_nothing_on_the_list_is_random_or_opens_files() -> None:
    """Dropout does nothing in evaluation mode; attention has the argument for it."""
    random_in_training = {"dropout", "feature_dropout", "native_dropout", "scaled_dot_product_attention"}
    for name in ATEN - random_in_training:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            operator = getattr(packet, overload)
            assert torch.Tag.nondeterministic_seeded not in operator.tags, operator
            assert not any(word in a.name for a in operator._schema.arguments for word in ("file", "url")), operator


def test_pickles_are_not_read(saved: Path, tmp_path: Path) -> None:
    """Neither the sample inputs, which no one needs, nor weights."""
    bdnet_deploy.load(
        rewritten(saved, tmp_path / "m.pt2", {"sample_inputs/model.pt": b"\x80\x04cos\nsystem\n(S'x'\ntR."})
    )

    def pickled(config: dict[str, Any]) -> None:
        next(iter(config["config"].values()))["use_pickle"] = True

    path = rewritten(saved, tmp_path / "n.pt2", {"weights_config.json": pickled})
    refused(path, UnsupportedError, "is stored as a pickle", "pickles can run code")


def test_damage(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    refused(rewritten(saved, path, {"weights/weight_0": None}), ModelFileError)
    refused(rewritten(saved, path, {"weights/weight_0": b"short"}), ModelFileError)
    refused(rewritten(saved, path, {"models/model.json": b"{"}), ModelFileError)
    refused(rewritten(saved, path, {"models/model.json": b"[" * 100_000}), ModelFileError)
    refused(rewritten(saved, path, {"models/model.json": None}), ModelFileError, "models/*.json")
    refused(
        rewritten(saved, path, {"model.json": lambda p: p["schema_version"].update(major=99)}),
        ModelFileError,
        "version 99",
    )
    path.write_bytes(b"nonsense")
    refused(path, ModelFileError)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    refused(path, ModelFileError, "older PyTorch")
    huge = {
        "weights_config.json": lambda c: next(iter(c["config"].values()))["tensor_meta"].update(
            sizes=[{"as_int": 1 << 60}]
        )
    }
    refused(rewritten(saved, path, huge), ModelFileError)


def test_strange_shapes(saved: Path, tmp_path: Path) -> None:
    for size in ("x", 1 << 40, -1, 2.5, True):

        def edit(program: dict[str, Any], size: Any = size) -> None:
            program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][2] = {"as_int": size}

        refused(rewritten(saved, tmp_path / "m.pt2", {"models/model.json": edit}), ModelFileError)
    no_outputs = {"models/model.json": lambda p: p["graph_module"]["signature"].update(output_specs=[{}])}
    refused(rewritten(saved, tmp_path / "m.pt2", no_outputs), ModelFileError)


def test_nan_is_named(tmp_path: Path) -> None:
    net = Net().eval()
    with torch.no_grad():
        net.bn.bias[1] = float("nan")
    torch.export.save(torch.export.export(net, (torch.randn(1, 4, 6, 6),)), tmp_path / "m.pt2")
    refused(tmp_path / "m.pt2", UnsupportedError, "the tensor 'bn.bias' holds NaN")


def test_several_inputs(tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return x + z

    torch.export.save(torch.export.export(Two(), (torch.randn(1, 4), torch.randn(1, 4))), tmp_path / "m.pt2")
    refused(tmp_path / "m.pt2", UnsupportedError, "several inputs", "x, z")


def fuzz(saved: Path, folder: Path, rounds: int, seed: int) -> None:
    """Single values of the program and of the lists of tensors replaced by others: imported, or refused."""
    generator = random.Random(seed)

    def leaves(value: Any) -> list[tuple[Any, Any]]:
        items = (
            list(value.items())
            if isinstance(value, dict)
            else list(enumerate(value))
            if isinstance(value, list)
            else []
        )
        return [pair for key, inner in items for pair in [(value, key), *leaves(inner)]]

    def mutate(content: dict[str, Any]) -> None:
        for _ in range(generator.choice((1, 1, 3))):
            where, key = generator.choice(leaves(content))
            where[key] = generator.choice(
                [None, 0, -1, 1 << 62, 2.5, "x", "", [], {}, True, {"as_int": 7}, [1 << 40, 1]]
            )

    for _ in range(rounds):
        end = generator.choice(("models/model.json", "models/model.json", "weights_config.json"))
        path = rewritten(saved, folder / "m.pt2", {end: mutate})
        start = time.monotonic()
        try:
            bdnet_deploy.load(path)
        except BdnetError as error:
            assert str(error)
        assert time.monotonic() - start < 20


@pytest.mark.filterwarnings("ignore")
def test_mutations(saved: Path, tmp_path: Path) -> None:
    fuzz(saved, tmp_path, 40, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_mutations(saved: Path, tmp_path: Path) -> None:
    fuzz(saved, tmp_path, 1000, 2)
