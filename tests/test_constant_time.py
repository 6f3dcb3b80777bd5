"""Every fixed-point kernel costs the same instructions, whatever the bytes of its operands: branches on data would show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bdn_all_kernels import rest_of_kernels
from bdn_cases import Bdn, every_move, every_product
from bdn_elementwise import elementwise

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.emulated import Runner
from bdnet_deploy.emulator import Emulator
from bdnet_deploy.emulator.client import STEP_MARKERS
from bdnet_deploy.firmware import build_runner, target

for _package in ("ziglang", "unicorn", "capstone", "elftools"):
    pytest.importorskip(_package)

MODELS = [every_product, elementwise, every_move, rest_of_kernels]


def over_the_arena(b: Bdn) -> tuple[bytes, int, list[str]]:
    """The same steps without those of floats, and in front one that fills all tensors with the input.

    Returns:
        The file, the input's bytes, and the steps' kernels.
    """
    size = b.tensor_bytes
    b.tensors[0]["channels"] = b.tensors[0]["row_stride"] = size
    cover = b.tensors[0].copy()
    cover["place"] = bdn.Place.ARENA
    b.tensors.append(cover)
    names = [*b.kernels, "no kernel"]
    b.steps[0]["out"] = [len(b.tensors) - 1, bdn.NONE]
    b.steps[0]["out_channels"] = size
    labels = []
    kept = []
    for step in b.steps:
        label = names[step["kernel"]] if step["kernel"] != bdn.NONE else names[step["epilogue"]]
        if "f32" not in label and "_f_" not in label:
            kept.append(step)
            labels.append(label)
    b.steps = kept
    return b.write(), size, labels


def patterns(size: int) -> list[bytes]:
    """Zeros, ones, the ends of every integer type, and random bytes."""
    rng = np.random.default_rng(0)
    fills = [b"\0", b"\xff", b"\x80", b"\x7f", b"\0\x80", b"\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\x7f"]
    mixed = rng.choice(np.array([0, 1, 127, 128, 255], np.uint8), size).tobytes()
    return [(fill * size)[:size] for fill in fills] + [mixed, rng.bytes(size), rng.bytes(size)]


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
def test_counts_do_not_depend_on_the_data(core: str, tmp_path: Path) -> None:
    where = target(core)
    image = build_runner(where, tmp_path)
    different = []
    for make in MODELS:
        data, size, labels = over_the_arena(make())
        emulator = Emulator(image, where, None, markers=STEP_MARKERS)
        runner = Runner(emulator)
        assert runner.load(data) == 0
        counts: dict[int, set[int]] = {}
        for pattern in patterns(size):
            regions = runner.infer(pattern, 1, count=True).by_region
            assert sorted(regions) == list(range(len(labels)))
            for index, region in regions.items():
                counts.setdefault(index, set()).add(region.instructions)
        emulator.close()
        different += [(labels[i], sorted(found)) for i, found in sorted(counts.items()) if len(found) != 1]
    assert not different
