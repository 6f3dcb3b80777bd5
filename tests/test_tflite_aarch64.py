"""The runtime's TensorFlow Lite operators compiled for 64-bit Arm, under QEMU: the bytes of the host library."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flatbuffers import flexbuffers
from test_tflite_kernels import bconv_case, depthwise_case, pool_case
from tflite_kernels import NAMES, TYPES, Out, run

from bdnet_deploy.export.tflite.packing import pack

pytest.importorskip("ziglang")
COMPILER = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl"]
QEMU = "qemu-aarch64"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which(QEMU), reason=f"no {QEMU}")]
Case = tuple[str, Sequence[np.ndarray | None], Sequence[Out], Any, range]


def encode(case: Case) -> bytes:
    """The node as tflite_node.c reads it."""
    name, inputs, outs, options, constants = case
    custom = options if isinstance(options, bytes) else bytes(flexbuffers.Dumps(options))
    out = struct.pack("<ii", NAMES.index(name), len(custom)) + custom
    present = [(i, x) for i, x in enumerate(inputs) if x is not None]
    out += struct.pack("<i", len(present) + len(outs))
    for i, x in present:
        out += struct.pack("<iifi", TYPES[x.dtype.str[1:]], i in constants, 0.0, 0)
        out += struct.pack(f"<{x.ndim + 2}i", x.ndim, *x.shape, x.nbytes) + x.tobytes()
    for o in outs:
        out += struct.pack("<iifiii", TYPES[str(o.dtype)], 0, o.scale, o.zero_point, 0, 0)
    where = {i: n for n, (i, _) in enumerate(present)}
    ins = [where.get(i, -1) for i in range(len(inputs))]
    results = [len(present) + k for k in range(len(outs))]
    return out + struct.pack(f"<{len(ins) + len(results) + 2}i", len(ins), *ins, len(results), *results)


def cases() -> list[Case]:
    drawn: list[Case] = []
    for seed in range(150):
        inputs, out, o, _ = bconv_case(seed)
        drawn.append(("LceBconv2d", inputs, [out], o, range(1, 8)))
        first, options, outs = depthwise_case(seed)
        drawn.append((NAMES[4], first, outs, options.to_bytes(), range(2, 8)))
        x, pool, _ = pool_case(seed)
        drawn.append(("LceBMaxPool2d", [pack(x)], [Out("i4")], pool, range(1, 8)))
        y = np.random.default_rng(seed).normal(size=(2, 3, 1 + seed)).astype(np.float32)
        drawn.append(("LceQuantize", [y], [Out("i4")], b"", range(1, 8)))
    return drawn


def test_the_same_bytes(root: Path, tmp_path: Path) -> None:
    program = tmp_path / "nodes"
    folder = root / "runtime" / "tflite"
    sources = [*map(str, sorted(folder.glob("*.c"))), str(Path(__file__).with_name("tflite_node.c"))]
    flags = ["-std=c99", "-O3", "-static", "-ffp-contract=off", f"-I{folder}"]
    subprocess.run([*COMPILER, *flags, *sources, "-o", str(program)], check=True, capture_output=True)
    nodes = cases()
    done = subprocess.run([QEMU, str(program)], input=b"".join(map(encode, nodes)), capture_output=True, check=True)
    data, at = done.stdout, 0
    for name, inputs, outs, options, constants in nodes:
        for expected in run(name, list(inputs), list(outs), options, constants=constants):
            (size,) = struct.unpack_from("<i", data, at)
            assert data[at + 4 : at + 4 + size] == expected.tobytes(), (name, options)
            at += 4 + size
    assert at == len(data)
