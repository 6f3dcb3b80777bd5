"""Random networks end to end: numpy reference, host library and emulated cores give the same bytes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from random_networks import RandomNetwork, random_network

from bdnet_deploy.emulated import Runner
from bdnet_deploy.emulator import Emulator
from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.firmware import build_runner, target
from bdnet_deploy.graph import NUMERICS, REPLICATE, Array, evaluate
from bdnet_deploy.graph.float_functions import FLOAT
from bdnet_deploy.host import HostModel
from bdnet_deploy.lowering import Lowered, lower
from bdnet_deploy.targets import Core

#: Networks of ``make test``: 150 in each numerics, every one on the host and on one core.
SEEDS = range(300)
CASES = [(seed, NUMERICS[seed % len(NUMERICS)]) for seed in SEEDS]
MAIN_CORES = ("cortex-m0plus", "cortex-m4", "cortex-a72")
OTHER_CORES = ("cortex-m3", "cortex-m7", "cortex-m33")

# Inputs go up to the largest float: overflow and NaN are part of the semantics.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def core_of(seed: int) -> str:
    """The emulated core of a seed: mostly the main ones, each with every numerics."""
    turn = seed // len(NUMERICS)
    return OTHER_CORES[turn // 10 % 3] if turn % 10 == 9 else MAIN_CORES[turn % 3]


@cache
def lowered_network(seed: int, numerics: str) -> tuple[RandomNetwork, Lowered | UnsupportedError]:
    network = random_network(seed)
    try:
        return network, lower(network.graph, numerics, io=network.io, samples=network.samples)
    except UnsupportedError as error:
        return network, error


def canonical(values: Array) -> bytes:
    """Bytes to compare, where every NaN is one: IEEE 754 leaves its sign and payload to the processor."""
    if values.dtype == np.float32:
        values = np.where(np.isnan(values), np.float32(np.nan), values)
    return values.tobytes()


class Case:
    """A lowered network, its file, three inputs and what the reference makes of them."""

    def __init__(self, seed: int, numerics: str) -> None:
        network, lowered = lowered_network(seed, numerics)
        if isinstance(lowered, UnsupportedError):
            assert "layer" in (lowered.where or lowered.what), lowered
            pytest.skip(str(lowered))
        self.lowered = lowered
        self.data = write_bdn(lowered.plan, io=network.io)
        self.inputs = network.inputs(lowered)
        self.values = evaluate(lowered.graph, [self.inputs], keep=True)
        output = lowered.graph.outputs[0]
        tensor = lowered.plan.tensor_of(output)
        assert tensor is not None
        self.expected = self.values[output.name].astype(tensor.dtype.numpy)

    def check_host(self) -> None:
        model = HostModel(self.data)
        for i, x in enumerate(self.inputs):
            contents = model.run_steps(x)
            for index, tensor in enumerate(self.lowered.plan.tensors):
                for value in tensor.values:
                    expected = self.values[value.name][i].astype(contents[index].dtype)
                    assert canonical(contents[index]) == canonical(expected), f"input {i}: {value.name}"
        result = model.run(self.inputs)[0]
        assert result.dtype == self.expected.dtype
        assert canonical(result) == canonical(self.expected)
        assert model.self_test() or not np.isfinite(self.expected).all()


class Cores:
    """One runner image (with room for these networks) and one emulated processor per core, built at first use, replaced after a failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runners: dict[str, Runner] = {}

    def run(self, name: str, case: Case) -> None:
        runner = self.runners.pop(name, None) or self._start(name)
        assert runner.load(case.data) == 0
        for i, (x, expected) in enumerate(zip(case.inputs, case.expected, strict=True)):
            output = runner.infer(x.tobytes(), expected.nbytes).output
            result = np.frombuffer(output, expected.dtype)
            assert canonical(result) == canonical(expected), f"{name}, input {i}"
        self.runners[name] = runner

    def _start(self, name: str) -> Runner:
        core = target(name)
        assert isinstance(core, Core)
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        image = folder / "runner.elf"
        sizes = {"BD_RUNNER_MODEL_BYTES": 128 * 1024, "BD_RUNNER_ARENA_BYTES": 256 * 1024}
        emulator = Emulator(image if image.exists() else build_runner(core, folder, defines=sizes), core)
        emulator.run()
        return Runner(emulator)

    def close(self) -> None:
        for runner in self.runners.values():
            runner.emulator.close()


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cores]:
    for module in ("unicorn", "ziglang"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    processors = Cores(tmp_path_factory.mktemp("runners"))
    yield processors
    processors.close()


@pytest.mark.parametrize(("seed", "numerics"), CASES)
def test_random_network(seed: int, numerics: str, cores: Cores) -> None:
    case = Case(seed, numerics)
    case.check_host()
    cores.run(core_of(seed), case)


def test_few_networks_are_unsupported() -> None:
    errors = [n for n in (lowered_network(*case)[1] for case in CASES) if isinstance(n, UnsupportedError)]
    assert len(errors) <= len(CASES) // 10, [str(e) for e in errors]


def operator_of(kernel: str) -> str:
    """A kernel's name without its dtypes."""
    dtype = re.compile(r"[fuqhibtz]{1,2}|[fiu]\d+|u?bit|trit")
    return "_".join(itertools.takewhile(lambda part: not dtype.fullmatch(part), kernel.split("_")))


def test_every_operator_is_reached() -> None:
    """The generator reaches what it is meant to reach: all products, pools and epilogues, and each other kernel family."""
    from bdnet_deploy.plan.kernels import kernel_names
    from bdnet_deploy.plan.packings import epilogue_packing, packing

    plans = [n.plan for n in (lowered_network(*case)[1] for case in CASES) if isinstance(n, Lowered)]
    used = {kernel for plan in plans for kernel in plan.kernels}
    wide = {f"bd_conv_{pair}_i32" for pair in ("bb", "tb", "zb", "bt", "tt", "zt")}  # 32768 taps and more
    rare = {"bd_gap_u_i32", "bd_conv_zf_f32"}  # an image pooled as it is; {0,1} and real weights
    main = ("bd_conv_", "bd_dw_", "bd_avgpool_", "bd_gap_", "bd_group_mean_", "bd_epilogue_", "bd_clamp_")
    plain = {name for name in kernel_names() if not packing(name) and not epilogue_packing(name)}  # those are a core's
    assert {name for name in plain if name.startswith(main)} - used <= wide | rare
    functions = {f"bd_{name}_f32" for name in FLOAT}
    assert len(used & functions) > 2
    reached = {operator_of(name) for name in used}
    assert {operator_of(name) for name in plain - functions} <= reached
    assert {step.groups for plan in plans for step in plan.steps if step.kernel} >= {1, 2, 3, 5}
    assert {step.pad_value for plan in plans for step in plan.steps} == {-1, 0, 1, REPLICATE}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_random_network_on_every_main_core(seed: int, cores: Cores) -> None:
    case = Case(seed, NUMERICS[seed % len(NUMERICS)])
    for core in MAIN_CORES:
        cores.run(core, case)
