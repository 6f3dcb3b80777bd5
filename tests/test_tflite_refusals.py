"""``.tflite`` files that cannot be imported: the message names the operator; a damaged file never crashes or hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_graphs import Net, bdnet
from test_bad_input import invoke
from tflite_files import File

import bdnet_deploy
from bdnet_deploy.errors import BdnetError, MissingPackageError, ModelFileError, UnsupportedError, UsageError
from bdnet_deploy.export import tflite as export
from bdnet_deploy.export.tflite.builder import F32, I32, SAME, VALID
from bdnet_deploy.export.tflite.flatbuffer import from_bytes, to_bytes
from bdnet_deploy.export.tflite.operator_names import NAMES
from bdnet_deploy.export.tflite.schema import BUILTINS, Builtin, Operator
from bdnet_deploy.importers.tflite import import_tflite
from bdnet_deploy.peers import lce

MAP = (1, 6, 6, 8)


def window(kernel: int, stride: int, padding: int) -> dict[str, int]:
    return {"padding": padding, "stride_h": stride, "stride_w": stride, "filter_h": kernel, "filter_w": kernel}


def zero_padded_bits(f: File) -> int:
    bits = f.bconv(f.bits(f.x), 8, 32, padding=SAME, pad_values=0, threshold=np.zeros(32))
    return f.unpacked(bits, 32)


def small_groups(f: File) -> int:
    wide = f.op("TILE", [f.x, f.ints(1, 1, 1, 6)], (1, 6, 6, 48))
    weights = f.b.constant("w", np.zeros((4, 1, 1, 1), np.int32))
    y = f.b.tensor("y", (1, 6, 6, 4))
    return f.b.lce_bconv2d(f.bits(wide), weights, y, 48, multiplier=f.floats(4), bias=f.floats(4))


def custom(f: File) -> int:
    y = f.b.tensor("made", MAP)
    f.model.operators.append(Operator("MyOwnOperator", (f.x,), (y,)))
    return y


REFUSED: dict[str, tuple[Callable[[File], int], str]] = {
    "average over the border": (lambda f: f.op("AVERAGE_POOL_2D", [f.x], MAP, **window(3, 1, SAME)), "padding 'valid'"),
    "pixel constants": (lambda f: f.op("ADD", [f.x, f.floats(*MAP)], MAP), "differs from pixel to pixel"),
    "division of maps": (lambda f: f.op("DIV", [f.x, f.op("EXP", [f.x], MAP)], MAP), "computed"),
    "constant by map": (lambda f: f.op("DIV", [f.floats(1), f.x], MAP), "divides a constant by a map"),
    "weights that are computed": (
        lambda f: f.op("FULLY_CONNECTED", [f.x, f.op("RESHAPE", [f.x], (36, 8)), -1], (36, 36)), "computed"),
    "an operator of somebody else": (custom, "not known"),
    "bits of zero padding": (zero_padded_bits, "cannot run"),
    "groups that are no words": (small_groups, "damaged|group"),
    "slopes per pixel": (lambda f: f.op("PRELU", [f.x, f.floats(6, 6, 8)], MAP), "shared_axes"),
    "padding of the batch": (lambda f: f.op("PAD", [f.x, f.ints([[1, 0]] + [[0, 0]] * 3)], (2, 6, 6, 8)), "batch"),
    "bits as the result": (lambda f: f.bits(f.x), "packed bits"),
    "an order without an operator": (
        lambda f: f.op("RELU", [f.op("TRANSPOSE", [f.op("RESHAPE", [f.x], (1, 6, 3, 2, 8)), f.ints(0, 3, 2, 1, 4)],
                                     (1, 2, 3, 6, 8))], (1, 2, 3, 6, 8)), "cannot be a map"),
    "a window too large": (lambda f: f.op("MAX_POOL_2D", [f.x], MAP, **window(300, 1, SAME)), "limit of 255"),
    "sums of rows": (lambda f: f.op("SUM", [f.x, f.ints([1])], (1, 6, 8)), "alone"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_named(name: str) -> None:
    make, says = REFUSED[name]
    file = File(*MAP)
    data = file.done(make(file))
    with pytest.raises(BdnetError, match=says) as caught:
        import_tflite(data)
    assert str(caught.value).startswith(("operator ", "output "))


def test_an_unknown_builtin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILTINS, "MIRROR_PAD", Builtin(100, 77))
    file = File(*MAP)
    data = file.done(file.op("MIRROR_PAD", [file.x, file.ints([[0, 0]] * 4)], MAP))
    monkeypatch.undo()
    with pytest.raises(UnsupportedError, match=r"operator 0 \(MIRROR_PAD"):
        import_tflite(data)


def test_batches_and_dynamic_shapes() -> None:
    file = File(4, 6, 6, 8)
    with pytest.raises(UnsupportedError, match="batch is 4"):
        import_tflite(file.done(file.op("RELU", [file.x], (4, 6, 6, 8))))
    file = File(*MAP)
    file.model.tensors[file.x].signature = (-1, 6, 6, 8)  # as Keras writes any batch: one sample is fine
    data = file.done(file.op("RELU", [file.x], MAP))
    assert import_tflite(data).inputs[0].type.shape == MAP
    file.model.tensors[file.x].signature = (1, -1, -1, 8)
    with pytest.raises(UnsupportedError, match="dynamic"):
        import_tflite(to_bytes(file.model))


def test_wrong_shapes_and_missing_operands() -> None:
    file = File(*MAP)
    with pytest.raises(ModelFileError, match="shape"):
        import_tflite(file.done(file.op("RELU", [file.x], (1, 6, 6, 9))))
    file = File(*MAP)
    with pytest.raises(ModelFileError, match="nothing makes"):
        import_tflite(file.done(file.op("ADD", [file.x, file.b.tensor("lost", MAP)], MAP)))
    file = File(*MAP)
    with pytest.raises(ModelFileError, match="input 1 is missing"):
        import_tflite(file.done(file.op("CONV_2D", [file.x], MAP)))
    file = File(*MAP)
    with pytest.raises(BdnetError, match="NaN"):
        import_tflite(file.done(file.op("ADD", [file.x, file.b.constant("c", np.full(8, np.nan, np.float32))], MAP)))


def test_hostile_shapes_take_no_memory() -> None:
    shape = (1, 1 << 15, 1 << 15, 1 << 10)
    file = File(*shape)
    with pytest.raises(ModelFileError, match="cannot be imported"):
        import_tflite(file.done(file.op("RELU", [file.x], shape)))
    file = File(*MAP)
    y = file.op("TILE", [file.x, file.ints(1, 1 << 20, 1 << 20, 1)], (1, 6 << 20, 6 << 20, 8))
    with pytest.raises(ModelFileError):
        import_tflite(file.done(y))


def test_several_subgraphs() -> None:
    file = File(*MAP)
    data = bytearray(file.done(file.op("RELU", [file.x], MAP)))
    root = int.from_bytes(data[:4], "little")
    table = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    at = root + int.from_bytes(data[table + 8 : table + 10], "little")  # slot 2: the subgraphs
    vector = at + int.from_bytes(data[at : at + 4], "little")
    data[vector : vector + 4] = (2).to_bytes(4, "little")
    with pytest.raises(UnsupportedError, match="2 subgraphs"):
        import_tflite(bytes(data))


# -- damage -------------------------------------------------------------------------------------------------------------


def specimens() -> list[bytes]:
    """Files that use all kinds of rules."""
    net = Net(0, 6, 6, 8)
    bits = net.sign(net.affine(net.conv(net.ternarize(net.x), 8)))
    files = [
        export.write(net.done(net.affine(net.depthwise(bits, padding=(1, 1, 1, 1)))).graph).data,
        export.write(bdnet(0, blocks=1).graph).data,
    ]
    file = File(*MAP)
    y = file.op("CONV_2D", [file.x, file.floats(8, 3, 3, 8), file.floats(8)], MAP, padding=SAME, stride_h=1, stride_w=1)
    y = file.op("TRANSPOSE", [y, file.ints(0, 2, 1, 3)], MAP)
    y = file.op("STRIDED_SLICE", [y, file.ints(0, 1, 0, 0), file.ints(1, 6, 6, 8), file.ints(1, 1, 1, 1)], (1, 5, 6, 8))
    y = file.op("MAX_POOL_2D", [y], (1, 2, 3, 8), **window(2, 2, VALID))
    y = file.op("CONCATENATION", [y, y], (1, 2, 3, 16), axis=3)
    bits = file.bmax_pool(file.bits(y), (2, 2), (1, 1), VALID)
    y = file.unpacked(file.bconv(bits, 16, 33, (1, 2), padding=VALID, pad_values=1, threshold=np.full(33, 16)), 33)
    files.append(file.done(file.op("FULLY_CONNECTED", [y, file.floats(4, 33), -1], (1, 4))))
    return files


@pytest.mark.parametrize("which", range(3))
def test_damaged_files_are_refused(which: int) -> None:
    data = specimens()[which]
    import_tflite(data)
    rng = np.random.default_rng(which)
    for _ in range(30):
        with pytest.raises(BdnetError):
            import_tflite(rng.bytes(4) + b"TFL3" + rng.bytes(int(rng.integers(0, 400))))
        with pytest.raises(BdnetError):
            import_tflite(data[: int(rng.integers(0, len(data) // 2))])
    taken = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(int(rng.integers(1, 5))):
            damaged[rng.integers(len(data))] = rng.choice([0, 1, 2, 127, 128, 255, rng.integers(256)])
        begin = time.monotonic()
        try:
            import_tflite(bytes(damaged))
            taken += 1
        except BdnetError as error:
            assert error.what
        assert time.monotonic() - begin < 20
    assert taken < 150  # some of the damage was seen


@pytest.mark.parametrize("which", range(3))
def test_changed_fields_are_refused_or_taken(which: int) -> None:
    """Sound containers with wrong numbers: operands, shapes, options, list constants."""
    data = specimens()[which]
    rng = np.random.default_rng(10 + which)
    refused = 0
    for _ in range(150):
        model = from_bytes(data)
        choice = rng.integers(4)
        tensor = model.tensors[rng.integers(len(model.tensors))]
        op = model.operators[rng.integers(len(model.operators))]
        if choice == 0:
            op.inputs = tuple(int(rng.integers(-1, len(model.tensors))) for _ in range(rng.integers(0, 5)))
        elif choice == 1 and tensor.data is None:
            tensor.shape = tuple(int(rng.choice([0, 1, 2, 3, 8, 70000, -1])) for _ in range(rng.integers(0, 6)))
        elif choice == 2 and op.options:
            op.options[str(rng.choice(list(op.options)))] = int(rng.choice([-1, 0, 1, 2, 3, 100]))
        elif tensor.data is not None and tensor.data.dtype.kind == "i":
            changed = tensor.data.copy()
            changed.ravel()[rng.integers(changed.size)] = rng.choice([-(2**31), -1, 0, 1, 5, 127])
            tensor.data = changed
        else:
            op.outputs = (int(rng.integers(len(model.tensors))),)
        try:
            import_tflite(to_bytes(model))
        except BdnetError as error:
            refused += 1
            assert error.what and (error.where or error.why or error.fix)
    assert refused > 20


# -- through load and the command line ----------------------------------------------------------------------------------


def test_load_refuses_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.tflite").write_bytes(b"x")
    result = invoke("inspect", "x.tflite")
    assert result.exit_code == 1 and "x.tflite: this is not a TensorFlow Lite file" in result.stderr
    file = File(*MAP)
    Path("y.tflite").write_bytes(file.done(custom(file)))
    result = invoke("export", "y.tflite", "--target", "bdn")
    assert result.exit_code == 1 and "y.tflite: operator 0 (MyOwnOperator, 'made')" in result.stderr
    assert not Path("y.bdn").exists()
    with pytest.raises(UsageError, match="leave out --arch"):
        bdnet_deploy.load("y.tflite", arch="bdnet_digits")
    with pytest.raises(ModelFileError, match="no such file"):
        bdnet_deploy.load("none.tflite")
    with pytest.raises(ModelFileError, match="not a PyTorch model"):
        bdnet_deploy.load(model="torch.nn:Identity", weights="y.tflite")


def test_keras_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.delenv("BDNET_KERAS_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    result = invoke("inspect", path)
    assert result.exit_code == 1 and "tensorflow, tf_keras, larq" in result.stderr
    for line in ("tensorflow==2.19.1", "convert_keras_model", "TF_USE_LEGACY_KERAS=1", "inspect model.tflite"):
        assert line in result.stderr
    monkeypatch.setenv("BDNET_KERAS_PYTHON", str(tmp_path / "nothing"))
    result = invoke("inspect", path)
    assert result.exit_code == 1 and "cannot be started" in result.stderr


def test_the_words_of_a_packed_tensor_must_fit() -> None:
    file = File(*MAP)
    bits = file.b.tensor("bits", (1, 6, 6, 2), I32)
    file.model.operators.append(Operator("LceQuantize", (file.x,), (bits,)))
    with pytest.raises(ModelFileError, match="shape"):
        import_tflite(file.done(file.b.lce_dequantize(bits, 8, F32, "y")))


def test_names_agree_with_the_schema() -> None:
    """The generated schema inside larq-compute-engine, by which the codes and options of all operators are checked."""
    schema = larq_schema()
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    assert [codes[i] for i in range(len(NAMES))] == NAMES
    options = vars(schema.BuiltinOptions)
    fields = {"i8": np.int8, "i32": np.int32, "bool": np.bool_, "f32": np.float32}
    for name, builtin in BUILTINS.items():
        assert codes[builtin.code] == name
        if not builtin.options_type:
            continue
        (table,) = [k for k, v in options.items() if v == builtin.options_type and not k.startswith("_")]
        theirs = getattr(schema, f"{table}T")()
        defaults = [v for v in vars(theirs).values() if v is not None]
        assert len(defaults) >= len(builtin.options), name
        for (_, kind, default), other in zip(builtin.options, defaults):
            assert fields[kind](default) == other, name


def larq_schema() -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    try:
        package = lce.find_interpreter().parents[2]
    except MissingPackageError as error:
        pytest.skip(str(error))
    spec = spec_from_file_location("larq_schema", package / "mlir" / "python" / "tflite_schema.py")
    assert spec is not None and spec.loader is not None
    schema = module_from_spec(spec)
    spec.loader.exec_module(schema)
    return schema
