"""The plan: memory, kernels, order, packing; and the files written from it."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network

from bdnet_deploy import bdn_format, resources
from bdnet_deploy.bitplanes import pack, unpack, words
from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.export.bdn import write_bdn
from bdnet_deploy.export.c import write_c
from bdnet_deploy.graph import (
    NUMERICS,
    Affine,
    AvgPool,
    Concat,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GroupMean,
    Op,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
    evaluate,
)
from bdnet_deploy.host import HostModel
from bdnet_deploy.iodesc import IODescription
from bdnet_deploy.lowering import lower
from bdnet_deploy.plan import Plan, make_plan
from bdnet_deploy.plan.kernels import kernel_names

SEEDS = range(60)


@cache
def random_plan(seed: int) -> Plan:
    network = random_network(seed)
    return lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples).plan


def real_affine(graph: Graph, *xs: Value) -> Value:
    channels = xs[0].type.channels
    parameters = [graph.parameter("p", np.linspace(0.5, 1.5, channels)) for _ in range(len(xs) + 1)]
    return graph.add(Affine(len(xs)), [*xs, *parameters], "affine")


def bits_of(graph: Graph, x: Value) -> Value:
    return graph.add(Sign(), [x, graph.parameter("t", np.zeros(x.type.channels))], "sign")


def binary_conv(graph: Graph, x: Value, outputs: int, op: Op | None = None, k: int = 1) -> Value:
    weight = graph.constant("w", np.ones((outputs, k, k, x.type.channels)), DType.BIT)
    return graph.add(op or Conv2d(), [x, weight], "conv", source="my.conv")


# -- memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_live_tensors_overlap(seed: int) -> None:
    """Byte by byte: what a step writes stays until the last step that reads it; only a trunk may take its residual's place."""
    plan = random_plan(seed)
    arena = [t for t in plan.tensors if t.place == "arena"]
    writers = {t: next(i for i, s in enumerate(plan.steps) if t in s.outputs) for t in arena}
    readers = {t: max([i for i, s in enumerate(plan.steps) if t in s.inputs], default=writers[t]) for t in arena}
    largest = 0
    for i, step in enumerate(plan.steps):
        taken = step.inputs[1] if len(step.inputs) == 2 else None
        in_place = step.trunk in arena and taken in arena and step.trunk.offset == taken.offset
        if in_place:
            assert readers[taken] == i and (taken.size, taken.dtype) == (step.trunk.size, step.trunk.dtype)
        live = [t for t in arena if writers[t] <= i <= readers[t] and not (in_place and t is taken)]
        owner = np.full(plan.tensor_bytes, -1)
        for n, tensor in enumerate(live):
            area = owner[tensor.offset : tensor.offset + tensor.size]
            assert len(area) == tensor.size, "beyond the arena"
            assert (area == -1).all(), f"step {i}: {tensor.values} lies in {live[area.max()].values}"
            area[:] = n
            assert tensor.offset % 16 == 0
        largest = max(largest, sum(-(-t.size // 16) * 16 for t in live))
    assert plan.lower_bound == largest + plan.scratch_bytes
    assert plan.tensor_bytes % 16 == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_arena_is_what_the_plan_needs(seed: int) -> None:
    plan = random_plan(seed)
    assert plan.tensor_bytes + plan.scratch_bytes >= plan.lower_bound
    for step in plan.steps:
        rows = 0
        if step.kernel is not None and step.epilogue_kernel is not None:
            _, width, channels = step.out_shape
            rows = -(-width * channels * step.acc_dtype.numpy.itemsize // 4) * 4 * step.rows_per_call
        assert rows <= step.scratch <= plan.scratch_bytes
        assert step.scratch % 16 == 0
    assert HostModel(write_bdn(plan)).info.steps == len(plan.steps)


# -- steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_node_is_computed_once_and_in_order(seed: int) -> None:
    plan = random_plan(seed)
    graph = plan.graph
    computed = [n for s in plan.steps for n in s.nodes]
    assert len(set(computed)) == len(computed)
    missing = set(graph.nodes) - set(computed)
    assert all(isinstance(n.op, Reshape | Repeat) for n in missing)
    written = {t for t in plan.tensors if t.place == "input"}
    for step in plan.steps:
        assert set(step.inputs) <= written, step.name
        written |= set(step.outputs)
    for i, value in enumerate(graph.outputs):
        tensor = plan.tensor_of(value)
        assert tensor is not None and tensor.place == "output" and tensor.offset == i
        assert tensor in written
    for i, value in enumerate(graph.inputs):
        tensor = plan.tensor_of(value)
        assert tensor is not None and tensor.place == "input" and tensor.offset == i


@pytest.mark.parametrize("seed", SEEDS)
def test_kernels_are_sorted_unique_and_there(seed: int) -> None:
    kernels = random_plan(seed).kernels
    assert kernels == sorted(set(kernels))
    assert set(kernels) <= kernel_names()
    assert kernels == bdn_format.read(write_bdn(random_plan(seed))).kernels


@pytest.mark.parametrize("numerics", NUMERICS)
def test_the_shortcuts_pooling_comes_before_its_convolution(numerics: str) -> None:
    """So that the residual is there when the convolution's epilogue adds it, though the graph has it later."""
    graph = Graph()
    trunk = real_affine(graph, graph.input("x", (1, 4, 4, 8), DType.F64))
    acc = binary_conv(graph, bits_of(graph, trunk), 8, Conv2d((2, 2)), k=2)
    pooled = graph.add(AvgPool(), [trunk], "pool")
    graph.outputs = [real_affine(graph, acc, pooled)]
    plan = lower(graph, numerics).plan
    kinds = [(s.kernel or "")[:8] for s in plan.steps]
    assert kinds.index("bd_avgpo") < kinds.index("bd_conv_")
    conv = plan.steps[kinds.index("bd_conv_")]
    assert [n.op.name for n in conv.nodes] == ["conv2d", "affine"] and len(conv.inputs) == 2
    assert conv.inputs[1] is plan.steps[kinds.index("bd_avgpo")].trunk


@pytest.mark.parametrize("numerics", NUMERICS)
def test_a_repeated_residual_costs_nothing(numerics: str) -> None:
    graph = Graph()
    trunk = real_affine(graph, graph.input("x", (1, 2, 2, 5), DType.F64))
    wide = graph.add(Repeat(3), [trunk], "repeat")
    graph.outputs = [real_affine(graph, binary_conv(graph, bits_of(graph, trunk), 15), wide)]
    plan = lower(graph, numerics).plan
    assert not any(k.startswith("bd_repeat") for k in plan.kernels)
    epilogue = plan.steps[-1].epilogue
    assert epilogue is not None and epilogue.residual_channels == 5
    graph.outputs.append(real_affine(graph, graph.add(GlobalAvgPool(), [wide], "gap")))
    assert any(k.startswith("bd_repeat") for k in lower(graph, numerics).plan.kernels)


@pytest.mark.parametrize("numerics", NUMERICS)
def test_two_convolutions_may_meet_in_one_sum(numerics: str) -> None:
    graph = Graph()
    bits = bits_of(graph, real_affine(graph, graph.input("x", (1, 3, 3, 4), DType.F64)))
    graph.outputs = [real_affine(graph, binary_conv(graph, bits, 6), binary_conv(graph, bits, 6))]
    lowered = lower(graph, numerics)
    x = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
    encoded = lowered.encode(x)
    expected = evaluate(lowered.graph, [encoded])[lowered.graph.outputs[0].name]
    assert HostModel(write_bdn(lowered.plan)).run(encoded)[0].tobytes() == expected.tobytes()


def test_slopes_of_another_dtype_are_a_step_of_their_own() -> None:
    """An int8 affine saturates before int16 slopes: they must not share an epilogue."""
    graph = Graph("g", "fixed8")
    x = graph.input("x", (1, 1, 2, 3), DType.I8)
    one, zero = (graph.constant("c", np.full(3, v), DType.I32) for v in (65536, 32768))
    big = graph.constant("mul", np.full(3, 32767), DType.I32)
    y = graph.add(Affine(1, DType.I8, (2,)), [x, big, zero], "affine")
    graph.outputs = [graph.add(TwoSlope(DType.I16), [y, one, one], "slopes")]
    plan = make_plan(graph)
    assert [s.epilogue_kernel for s in plan.steps] == ["bd_epilogue_i8", "bd_epilogue_i16"]
    samples = np.array([[[[-128, -100, 0], [1, 100, 127]]]], np.int8)
    expected = evaluate(graph, [samples])["slopes"]
    np.testing.assert_array_equal(HostModel(write_bdn(plan)).run(samples)[0], expected)
    assert expected.min() == -128


@pytest.mark.parametrize("dtype", [DType.BIT, DType.TRIT])
def test_real_inputs_take_binary_weights(dtype: DType) -> None:
    graph = Graph()
    x = graph.input("x", (1, 4, 4, 3), DType.F64)
    weight = graph.constant("w", np.random.default_rng(0).choice([-1, 1], (5, 3, 3, 3)), dtype)
    graph.outputs = [real_affine(graph, graph.add(Conv2d(), [x, weight], "conv"))]
    plan = lower(graph, "float").plan
    assert plan.kernels == ["bd_conv_ff_f32", "bd_epilogue_f32"]
    samples = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype(np.float32)
    expected = evaluate(plan.graph, [samples])["affine"]
    assert HostModel(write_bdn(plan)).run(samples)[0].tobytes() == expected.tobytes()


def test_what_no_kernel_runs_is_refused_by_name() -> None:
    graph = Graph("g", "float")
    x = graph.input("x", (1, 2, 2, 4), DType.F32)
    y = graph.add(Concat(), [x, x, x], "joined", source="my.cat")
    graph.outputs = [y]
    with pytest.raises(UnsupportedError, match="joins 3 maps") as caught:
        make_plan(graph)
    assert caught.value.where == "my.cat"

    graph = Graph("g", "float")
    graph.outputs = [graph.add(GroupMean(2), [graph.input("y", (1, 2, 2, 4), DType.U8)], "m", source="my.mean")]
    with pytest.raises(UnsupportedError, match="bd_group_mean_u8") as caught:
        make_plan(graph)
    assert caught.value.where == "my.mean"


@pytest.mark.parametrize("ternary", [False, True])
def test_packed_outputs_are_refused(ternary: bool) -> None:
    graph = Graph()
    y = real_affine(graph, graph.input("x", (1, 2, 2, 4), DType.F64))
    limits = [graph.parameter("t", np.zeros(4)) for _ in range(1 + ternary)]
    graph.outputs = [graph.add(Ternarize() if ternary else Sign(), [y, *limits], "bits")]
    with pytest.raises(UnsupportedError, match="'bits' is packed"):
        lower(graph, "float")


def test_an_input_cannot_be_an_output() -> None:
    graph = Graph("g", "float")
    x = graph.input("x", (1, 1, 1, 4), DType.F32)
    graph.outputs = [graph.add(Reshape((1, 4)), [x], "same")]
    with pytest.raises(UnsupportedError, match="also an input"):
        make_plan(graph)


# -- packing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DType.BIT, DType.TRIT])
@pytest.mark.parametrize("channels", [1, 31, 32, 33, 64, 100])
def test_packing_goes_there_and_back(dtype: DType, channels: int) -> None:
    values = np.random.default_rng(channels).choice([-1, 1] if dtype is DType.BIT else [-1, 0, 1], (3, 5, channels))
    packed = pack(values, planes=dtype.planes)
    assert packed.dtype == np.dtype("<u4") and packed.shape == (3, 5, 1 if dtype is DType.BIT else 2, words(channels))
    np.testing.assert_array_equal(unpack(packed, channels), values)
    for c in range(channels):  # one is a negative value; the lower plane of a trit is in the higher
        word, bit = divmod(c, 32)
        planes = (packed[..., word] >> np.uint32(bit)) & 1
        np.testing.assert_array_equal(planes[..., 0], values[..., c] < 0)
        if dtype is DType.TRIT:
            np.testing.assert_array_equal(planes[..., 1], values[..., c] <= 0)
    if channels % 32:
        assert not (packed[..., -1] >> np.uint32(channels % 32)).any(), "tail bits"


# -- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_files_are_the_same_every_time(seed: int) -> None:
    network = random_network(seed)
    first, second = (
        lower(network.graph, NUMERICS[seed % 3], io=network.io, samples=network.samples).plan for _ in range(2)
    )
    sample = np.zeros(first.graph.inputs[0].type.shape, first.graph.inputs[0].type.dtype.numpy)
    assert write_bdn(first, sample=sample) == write_bdn(second, sample=sample)
    data = write_bdn(first, sample=sample)
    assert write_c(first, data, name="m", io=network.io) == write_c(second, data, name="m", io=network.io)
    assert HostModel(write_bdn(first, sample=sample)).self_test()


MAIN = """
#include <stdio.h>
#include "test_model.h"

static uint8_t arena[TEST_MODEL_ARENA_BYTES] __attribute__((aligned(16)));
static TEST_MODEL_INPUT_TYPE input[TEST_MODEL_INPUT_ELEMENTS] __attribute__((aligned(16)));
static TEST_MODEL_OUTPUT_TYPE output[TEST_MODEL_OUTPUT_ELEMENTS] __attribute__((aligned(16)));

int main(void) {
    bd_context *context = 0;
    int passed = 0;
    const bd_status loaded = bd_load(arena, sizeof arena, TEST_MODEL_DATA, TEST_MODEL_BYTES, &TEST_MODEL_KERNELS, &context);
    const bd_status ran = loaded == BD_OK ? bd_self_test(context, input, output, &passed) : loaded;
    printf("%s %d %d\\n", bd_status_name(ran), passed, TEST_MODEL_OUTPUT_CHANNELS);
    return 0;
}
"""


@pytest.fixture(scope="module")
def runtime_objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The runtime as the user's compiler makes it."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("objects")
    runtime = resources.runtime_dir()
    sources = [*(runtime / "src").glob("*.c"), *(runtime / "kernels" / "generic").glob("*.c")]
    compile_c(sources, folder, ["-c"])
    return sorted(p for p in folder.glob("*.o") if p.name != "all.o")


def compile_c(sources: list[Path], folder: Path, options: list[str]) -> None:
    runtime = resources.runtime_dir()
    includes = [f"-I{p}" for p in (folder, runtime / "include", runtime / "src", runtime / "kernels")]
    flags = ["-std=c99", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    result = subprocess.run(
        ["gcc", *flags, *includes, *map(str, sources), *options], cwd=folder, capture_output=True, encoding="utf-8"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("seed", range(6))
def test_exported_c_compiles_without_a_warning_and_passes_its_test(
    seed: int, tmp_path: Path, runtime_objects: list[Path]
) -> None:
    network = random_network(seed)
    plan = random_plan(seed)
    source, header = write_c(plan, write_bdn(plan, io=network.io), name="test model", io=network.io)
    (tmp_path / "test_model.c").write_text(source, encoding="utf-8")
    (tmp_path / "test_model.h").write_text(header, encoding="utf-8")
    (tmp_path / "main.c").write_text(MAIN, encoding="utf-8")
    program = tmp_path / "program"
    compile_c([tmp_path / "main.c", tmp_path / "test_model.c", *runtime_objects], tmp_path, ["-o", str(program)])
    result = subprocess.run([str(program)], capture_output=True, encoding="utf-8", check=True)
    assert result.stdout == f"BD_OK 1 {plan.graph.outputs[0].type.channels}\n"


# -- C source ------------------------------------------------------------------------------------------------------------


def test_labels_are_plain_c(tmp_path: Path) -> None:
    """Labels in any script, quotes, control characters and trigraphs compile and come out as UTF-8."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    labels = ['a "quoted" one', "naïve", "数字", "😀", "tab\t", "what??/", "back\\slash", "%d"]
    io = IODescription.from_settings({"shape": (1, 1, 8)}, labels, None)
    plan = random_plan(0)
    source, header = write_c(plan, write_bdn(plan), name="labelled", io=io)
    (tmp_path / "labelled.h").write_text(header, encoding="utf-8")
    program = '#include <stdio.h>\n#include "labelled.h"\nint main(void) { const char *const l[] = LABELLED_LABELS;'
    program += (
        " for (unsigned i = 0; i < sizeof l / sizeof l[0]; i++) { fputs(l[i], stdout); putchar(0); } return 0; }\n"
    )
    (tmp_path / "main.c").write_text(program, encoding="utf-8")
    include = resources.runtime_dir() / "include"
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    subprocess.run([gcc, *flags, "main.c", "-o", "labels"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "labels"], capture_output=True, check=True).stdout
    assert said.decode("utf-8").split("\0")[:-1] == labels
    assert header.isascii() and source.isascii()


# -- limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "op", "what"),
    [
        ((1, 300, 4), AvgPool((1, 300), (1, 300)), "window of 300 is beyond the runtime's limit of 255"),
        ((2, 70000, 1), AvgPool(), "side or channel count of 70000"),
        ((600, 600, 1), GlobalAvgPool(), "pixel count of a global average pool of 360000"),
    ],
)
def test_numbers_beyond_the_format_are_refused(shape: tuple[int, ...], op: Op, what: str) -> None:
    """Named before anything is written; nothing wraps in a narrow field."""
    graph = Graph(numerics="fixed16")
    x = graph.input("x", (1, *shape), DType.I16)
    graph.outputs = [graph.add(op, [x], "y", source="my.layer")]
    with pytest.raises(UnsupportedError, match=what) as error:
        make_plan(graph)
    assert error.value.where == "my.layer"
