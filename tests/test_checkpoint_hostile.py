"""Checkpoints written by hand to take memory or time, to call something, or to read beyond their storages."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bdnet_deploy import checkpoint  # noqa: E402
from bdnet_deploy.errors import ModelFileError  # noqa: E402


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ModelFileError) as error:
        checkpoint.read(path)
    for word in (str(path), *words):
        assert word in str(error.value)


def archive(path: Path, program: bytes, records: dict[str, bytes] | None = None, compress: bool = False) -> Path:
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as target:
        target.writestr("archive/data.pkl", program)
        target.writestr("archive/version", b"3\n")
        for name, data in (records or {}).items():
            target.writestr(f"archive/{name}", data)
    return path


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(size, stride, offset: int = 0, numel: int = 4, key: str = "0", kind: str = "FloatStorage") -> bytes:
    """The instructions that torch.save writes for a tensor."""
    storage = (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(numel) + b"tQ"
    )
    view = number(offset) + numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89}tR"


def state_dict(*tensors: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(text(f"t{i}") + item for i, item in enumerate(tensors)) + b"u."


FOUR = {"data/0": np.arange(4, dtype=np.float32).tobytes()}


def test_the_hostile_builder_builds_good_files_too(tmp_path: Path) -> None:
    path = archive(tmp_path / "good.pt", state_dict(tensor((2, 2), (1, 2))), FOUR)
    assert checkpoint.read(path).state_dict["t0"].tolist() == [[0, 2], [1, 3]]
    assert torch.load(path, weights_only=True)["t0"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("order", ["little", "big"])
def test_byte_order(tmp_path: Path, order: str) -> None:
    data = np.arange(4, dtype="<f4" if order == "little" else ">f4").tobytes()
    records = {"data/0": data, "byteorder": order.encode()}
    path = archive(tmp_path / "order.pt", state_dict(tensor((4,), (1,))), records)
    assert checkpoint.read(path).state_dict["t0"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "program",
    [
        b"(" + text("echo") + b"ios\nsystem\n.",  # INST
        b"(cos\nsystem\n" + text("echo") + b"o.",  # OBJ
        b"cos\nsystem\n(" + text("echo") + b"t\x81.",  # NEWOBJ
        b"\x80\x04cos\nsystem\n(" + text("echo") + b"t}\x92.",  # NEWOBJ_EX
        b"\x80\x04" + text("os") + text("system") + b"\x93(" + text("echo") + b"tR.",  # STACK_GLOBAL, REDUCE
        b"cos\nsystem\n)R}" + text("x") + b"K\x01sb.",  # BUILD
        b"cos\nsystem\n.",
        b"\x82\x01.",  # EXT1
        b"Pname\n.",  # PERSID
        b"\x97.",  # NEXT_BUFFER
    ],
)
def test_every_instruction_that_calls(tmp_path: Path, program: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("code of the file ran")

    monkeypatch.setattr(os, "system", fail)
    refused(archive(tmp_path / "call.pt", program))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (tensor((5,), (1,)), "beyond its storage"),
        (tensor((2, 2), (3, 1)), "beyond its storage"),
        (tensor((1,), (1,), offset=4), "beyond its storage"),
        (tensor((2,), (-1,), offset=2), "cannot be"),
        (tensor((-2,), (1,)), "cannot be"),
        (tensor((2,), (1,), offset=-1), "cannot be"),
        (tensor((2**62, 2**62), (0, 0)), "cannot be"),
        (tensor((2**40, 2**40), (0, 0)), "absurdly large"),
        (tensor((0, 2**40, 2**40), (0, 0, 0)), "absurdly large"),
        (tensor((10**12,), (0,)), "larger than the file allows"),
        (tensor((2, 2), (1,)), "shape is damaged"),
        (tensor((1,) * 40, (1,) * 40), "shape is damaged"),
        (tensor((4,), (1,), numel=10**12), "does not have the size"),
        (tensor((4,), (1,), numel=5), "does not have the size"),
        (tensor((4,), (1,), key="9"), "lacks data/9"),
        (tensor((4,), (1,), key="../0"), "lacks data/../0"),
        (tensor((4,), (1,), kind="QInt8Storage"), "cannot be read"),
        (tensor((4,), (1,), kind="load"), "cannot be read"),
    ],
)
def test_tensors_that_lie(tmp_path: Path, item: bytes, message: str) -> None:
    refused(archive(tmp_path / "lie.pt", state_dict(item), FOUR), message)


def test_many_expanded_tensors_are_refused_together(tmp_path: Path) -> None:
    # 100 tensors of 4 MB each from 16 bytes.
    refused(
        archive(tmp_path / "many.pt", state_dict(*[tensor((10**6,), (0,))] * 100), FOUR), "larger than the file allows"
    )


def test_zip_bomb(tmp_path: Path) -> None:
    bomb = {"data/0": bytes(200_000_000)}
    path = archive(tmp_path / "bomb.pt", state_dict(tensor((50_000_000,), (1,), numel=50_000_000)), bomb, compress=True)
    assert path.stat().st_size < 1_000_000
    refused(path, "compressed")


def test_zip_that_declares_more_than_it_has(tmp_path: Path) -> None:
    path = archive(tmp_path / "size.pt", state_dict(tensor((4,), (1,))), FOUR)
    data = bytearray(path.read_bytes())
    name = data.rindex(b"archive/data/0")  # in the central directory
    for offset in (name - 46 + 20, name - 46 + 24):
        data[offset : offset + 4] = struct.pack("<I", 0x7FFFFFF0)
    path.write_bytes(data)
    refused(path, "more bytes than the file has")


BIG = struct.pack("<Q", 1 << 40)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x05\x96" + BIG + b".",  # BYTEARRAY8 of a terabyte
        b"\x80\x05\x8e" + BIG + b".",  # BINBYTES8
        b"\x80\x05\x8d" + BIG + b".",  # BINUNICODE8
        b"\x80\x04\x95" + BIG + b"N.",  # FRAME
        b"Nr" + struct.pack("<I", 2**32 - 1) + b".",  # memo index of four billion
        b")" + b"\x85" * 500_000 + b"}" + b"0.",  # a tuple nested half a million deep
        b"}" + b")" + b"\x85" * 500_000 + b"Ns.",  # the same as a key of a dict
        b"]" + b"(" * 500_000 + b".",  # marks
        b"(" * 300_000 + b"N" + b"l" * 300_000 + b".",  # lists
        b"N" * 2_100_000 + b".",  # too many instructions
        b"(" + b"N" * 100_000 + b"lq\x00" + b"0" + b"c__builtin__\nset\nh\x00\x85R0" * 5000 + b"N.",  # sets of one list
        b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(1, 20_000)) + b"u.",  # keys of equal hash
        b"q\x00.",
        b"h\x05.",
        b"t.",
        b"0.",
        b"R.",
        b"Q.",
        b"}K\x01s.",
        b"}(K\x01u.",
        b"NN\x86a.",
        b".",
        b"",
        b"I99999999999999999999999x\n.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"X\x02\x00\x00\x00\xff\xff.",
        b"c\xff\n\xff\n.",
    ],
)
def test_programs_that_take_memory_or_time(tmp_path: Path, program: bytes) -> None:
    start = time.monotonic()
    refused(archive(tmp_path / "program.pt", program))
    assert time.monotonic() - start < 15


def test_containers_that_hold_themselves(tmp_path: Path) -> None:
    loop = b"}q\x00(" + text("model") + b"h\x00" + text("state_dict") + b"h\x00u."
    refused(archive(tmp_path / "loop.pt", loop), "no state dict")


def test_legacy_storages_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pt"
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4)}, buffer, _use_new_zipfile_serialization=False)
    data = buffer.getvalue()
    size = len(data) - 16 - 8  # the number of elements before the last storage
    for count in (5, 2**62, 2**64 - 1):
        path.write_bytes(data[:size] + struct.pack("<Q", count) + data[size + 8 :])
        refused(path, "size that it declares")
    path.write_bytes(data[:-1])
    refused(path, "truncated")
