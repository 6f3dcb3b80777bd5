"""Compares variants with the generic kernels in a process of its own; prints how many cases it tried."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from variant_cases import case

from bdnet_deploy.host import HostModel, kernels
from bdnet_deploy.hostlib import KERNELS
from bdnet_deploy.plan.variants import variants


def main(count: int) -> None:
    levels, tried = kernels(), 0
    for kernel in sorted(k for k, sets in variants().items() if set(sets) & set(levels)):
        for seed in range(count):
            what, results = case(kernel, 2 * 10**6 + seed), []
            for level in levels:
                os.environ[KERNELS] = level
                results.append([y.tobytes() for y in HostModel(what.file).run(what.inputs)])
            assert all(r == results[0] for r in results), what.what
            tried += 1
    sys.stdout.write(f"{tried} cases\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
