"""Runs a file of one step on an emulated core twice, by the generic kernels and by the core's variants, and compares there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy import bdn_format as bdn
from bdnet_deploy.emulator import Emulator
from bdnet_deploy.firmware import runtime_includes, runtime_sources, target
from bdnet_deploy.plan.kernels import kernel_names
from bdnet_deploy.plan.variants import best_symbol, switch
from bdnet_deploy.targets import Core
from bdnet_deploy.toolchain import build_image

Array = np.ndarray[Any, np.dtype[Any]]

_MAIN = r"""
#include "bd_kernels.h"
#include "port.h"

static const bd_kernel *const best[] = {
%s
};
static const bd_kernel_table best_table = {best, (uint32_t)(sizeof(best) / sizeof(best[0]))};
#define ROOM (1u << %d)
static uint8_t model[ROOM] __attribute__((aligned(16))), arena[ROOM] __attribute__((aligned(16)));
static uint8_t data[2][ROOM] __attribute__((aligned(16))), made[2][2][ROOM] __attribute__((aligned(16)));

static void receive(void *to, uint32_t n) {
    uint8_t *at = to;
    while (n != 0) {
        const int32_t got = port_read(at, n);
        if (got <= 0) {
            port_exit(0);
        }
        at += got;
        n -= (uint32_t)got;
    }
}

static bd_status run(const bd_kernel_table *table, uint32_t size, const uint32_t n[2], int by) {
    const void *inputs[2] = {data[0], data[1]};
    void *outputs[2] = {made[by][0], made[by][1]};
    bd_context *context;
    bd_status status = bd_load(arena, ROOM, model, size, table, &context);
    return status == BD_OK ? bd_run(context, inputs, n[0], outputs, n[1]) : status;
}

int main(void) {
    for (;;) {
        uint32_t head[7], answer[2] = {0, 0}; /* model, inputs, outputs, bytes of each input, bytes of each output */
        receive(head, sizeof(head));
        receive(model, head[0]);
        for (uint32_t i = 0; i < head[1]; i++) {
            receive(data[i], head[3 + i]);
        }
        for (uint32_t i = 0; i < 2u * 2u * ROOM; i++) {
            made[0][0][i] = 0x5a;
        }
        answer[0] = (uint32_t)run(&bd_kernels_all, head[0], head + 1, 0) << 8;
        answer[0] |= (uint32_t)run(&best_table, head[0], head + 1, 1);
        for (uint32_t k = 0; k < 2; k++) {
            const uint32_t most = head[5 + k] + 64u; /* and behind the output nothing is written */
            for (uint32_t i = 0; i < most; i++) {
                answer[1] += made[0][k][i] != made[1][k][i];
            }
        }
        port_write(answer, sizeof(answer));
    }
}
"""


class Comparison:
    """The program on one core. Use as a context manager."""

    def __init__(self, core: str, folder: Path) -> None:
        where = target(core)
        assert isinstance(where, Core)
        rows = [best_symbol(k) for k in sorted(kernel_names())]
        source = folder / "compare.c"
        bits = 20 if where.is_linux else 18
        self.room = 1 << bits
        source.write_text(_MAIN % ("\n".join(rows), bits), encoding="utf-8")
        image = build_image(
            where,
            [source, *runtime_sources(where.sets)],
            folder / "compare.elf",
            includes=runtime_includes(),
            defines=dict.fromkeys(map(switch, where.sets)),
            port=None if where.is_linux else "semihosting",
        )
        self.emulator = Emulator(image, where, None)
        self.emulator.run()

    def holds(self, data: bytes) -> bool:
        """Whether the program has room for a file's model, inputs and outputs."""
        tensors = bdn.read(data).tensors
        sizes = tensors["row_stride"].astype(np.int64) * tensors["height"]
        return max(len(data), int(sizes.max())) + 64 <= self.room

    def different(self, data: bytes, inputs: list[Array]) -> int:
        """Bytes in which the outputs differ; the runtime must take the file."""
        assert self.holds(data)
        file = bdn.read(data)
        places = {place: file.tensors[file.tensors["place"] == place] for place in (bdn.Place.INPUT, bdn.Place.OUTPUT)}
        ins, outs = (np.sort(places[p], order="offset") for p in (bdn.Place.INPUT, bdn.Place.OUTPUT))
        packed = [bdn.pack_map(x[0], int(t["dtype"]), int(t["row_stride"])) for x, t in zip(inputs, ins, strict=True)]
        sizes = [int(t["row_stride"]) * int(t["height"]) for t in outs]
        head = [len(data), len(packed), len(sizes)]
        head += [len(p) for p in packed] + [0] * (2 - len(packed)) + sizes + [0] * (2 - len(sizes))
        self.emulator.send(np.array(head, "<u4").tobytes() + data + b"".join(packed))
        result = self.emulator.run()
        status, different = np.frombuffer(result.output, "<u4")
        assert status == 0, f"statuses {int(status) >> 8} and {int(status) & 255}"
        return int(different)

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        self.emulator.close()
