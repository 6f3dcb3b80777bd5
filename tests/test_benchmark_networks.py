"""``benchmarks/networks.py``: its rows, selections and errors, and the file of published figures."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

import network_peers
import networks
from network_memory import measure_memory, needed
from network_models import NETWORKS, find, random_model

from bdnet_deploy import errors, targets
from bdnet_deploy.model import Model
from bdnet_deploy.plan import make_plan
from bdnet_deploy.report import Column, Report, Table

KEYS = ["network", "core", "numerics", "instructions", "arena", "stack", "flash"]


@pytest.fixture(scope="module")
def vww() -> Model:
    return find("vww_0.25_96").build()


# -- networks ---------------------------------------------------------------------------------------------------------


def test_random_weights_are_the_same_every_time() -> None:
    first, second = (random_model("bdnet_kws", width=8, blocks=1).graph for _ in range(2))
    assert str(first) == str(second)
    for a, b in zip(first.constants(), second.constants(), strict=True):
        assert (a.data == b.data).all()


def test_random_weights_leave_the_callers_generator_alone() -> None:
    import torch

    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    random_model("bdnet_kws", width=8, blocks=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["digits", "kws", "es_resnet20"])
def test_every_network_can_be_planned(name: str) -> None:
    network = find(name)
    lowered = network.build().lowered("fixed8", network.calibrate)
    assert lowered.timing_only == (network.weights != "trained")
    assert lowered.plan.steps


# -- counts -----------------------------------------------------------------------------------------------------------


def test_rows_have_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(module)
    arguments = ["--network", "digits", "--core", "cortex-m4", "--numerics", "fixed8"]
    assert networks.main([*arguments, "--format", "json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    assert list(row)[: len(KEYS)] == KEYS
    assert (row["network"], row["core"], row["numerics"]) == ("digits", "cortex-m4", "fixed8")
    assert all(type(row[key]) is int and row[key] > 0 for key in KEYS[3:])
    assert row["weights"] == "trained"
    assert row["flash"] > row["model"]
    assert row["ram"] >= row["arena"]
    assert "digits" in printed.err
    report = find("digits").build().profile("cortex-m4", numerics="fixed8", calibrate=find("digits").calibrate)
    assert (row["instructions"], row["arena"]) == (report.facts["instructions"], report.facts["arena_bytes"])


def test_a_row_that_fails_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(network: object, model: object, core: str, numerics: str) -> networks.Row:
        if core == "cortex-m4":
            raise errors.DoesNotFitError("too large")
        return row()

    monkeypatch.setattr(networks, "measure", measure)
    assert networks.main(["--network", "kws", "--format", "json"]) == errors.DoesNotFitError.exit_code
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == len(networks.CORES) - 1
    assert "too large" in printed.err


def test_the_time_limit_of_a_profile_can_be_set() -> None:
    for module in ("ziglang", "unicorn", "elftools"):
        pytest.importorskip(module)
    with pytest.raises(errors.BdnetError, match="did not finish"):
        find("digits").build().profile("cortex-m0plus", numerics="fixed8", timeout_s=0.001)


def row(network: str = "kws") -> networks.Row:
    return networks.Row(network, "cortex-m4", "fixed8", 7654321, 1000, 200, 30000, 20000, 1500, None, "map by map", "x")


def test_text_and_markdown_stand_beside_the_peers_of_the_same_network() -> None:
    for form in ("text", "markdown"):
        text = networks.show([row()], lambda: networks.count_tables([row()]), form)
        assert "7,654,321" in text
        assert "X-CUBE-AI" in text and "23.155" in text
        assert "TinyEngine" not in text  # of visual wake words only
    assert re.search(r"^\|---\|.*---:\|", text, re.MULTILINE)


def test_goals_stand_beside_fixed16_only() -> None:
    known = {(name, core) for name, cores in networks.GOALS.items() for core in cores}
    assert {name for name, _ in known} <= set(NETWORKS) and {core for _, core in known} <= set(networks.CORES)
    wide = dataclasses.replace(row(), numerics="fixed16")
    assert row().goal is None and wide.goal == networks.GOALS["kws"]["cortex-m4"]
    assert f"{wide.goal:,}" in networks.show([wide], lambda: networks.count_tables([wide]), "markdown")


def test_a_network_without_peers_prints_no_empty_table() -> None:
    text = networks.show([row("digits")], lambda: networks.count_tables([row("digits")]), "text")
    assert "published" not in text


def test_a_network_that_does_not_fit_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    facts = dict.fromkeys(
        ("arena_bytes", "stack_bytes", "flash_bytes", "ram_bytes", "cycles_estimated", "execution"), 1
    )
    report = Report("profile", {**facts, "instructions": 5}, [Table("memory", [Column("what"), Column("bytes")])])
    report.table("memory").add(what="  model", bytes=9)

    def profile(self: Model, core: str, **options: object) -> Report:
        limits.append(options.get("ram"))
        if limits[-1] is None:
            raise errors.DoesNotFitError("too large")
        return report

    monkeypatch.setattr(Model, "profile", profile)
    measured = networks.measure(find("digits"), find("digits").build(), "cortex-m4", "fixed8")
    ram = max(memory.length for memory in targets.core("cortex-m4").memories if memory.kind == "ram")
    assert limits[0] is None
    assert len(limits) == 2 and 0.9 * ram < limits[1] < ram
    assert (measured.instructions, measured.model) == (5, 9)


def test_linux_cores_have_no_memory_to_stream_into(monkeypatch: pytest.MonkeyPatch) -> None:
    def profile(self: Model, core: str, **options: object) -> None:
        raise errors.DoesNotFitError("too large")

    monkeypatch.setattr(Model, "profile", profile)
    with pytest.raises(errors.DoesNotFitError):
        networks.measure(find("digits"), find("digits").build(), "cortex-a72", "fixed8")


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["--network", "kwd"], "kws"),
        (["--network", "kws", "--core", "cortex-m5"], "cortex-m4"),
        (["--network", "kws", "--numerics", "fixed9"], "fixed8"),
        (["--memory", "--network", "vww"], "vww_0.25_96"),
        (["--memory", "--core", "cortex-m4"], "--core"),
    ],
)
def test_unknown_names_get_the_nearest(arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert networks.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert nearest in printed.err
    assert "Traceback" not in printed.err


# -- memory -----------------------------------------------------------------------------------------------------------


def test_no_cut_needs_less_than_the_smallest_plan(vww: Model) -> None:
    lowered = vww.lowered("fixed8")
    steps = len(lowered.plan.steps)
    by_cut = [needed(make_plan(lowered.graph, cut=cut)) for cut in range(steps + 1)]
    line = measure_memory("vww_0.25_96", "fixed8", lowered)
    assert line.smallest <= min(by_cut)
    assert (line.map_by_map, line.streaming) == (by_cut[0], by_cut[-1])
    assert line.lower_bound <= line.smallest <= min(line.map_by_map, line.streaming)
    assert (line.input, line.output) == (96 * 96 * 3, 4)
    assert line.pushed is not None and line.pushed < line.smallest + line.input


def test_an_arena_of_the_smallest_plans_size_is_enough(vww: Model) -> None:
    lowered = vww.lowered("fixed8")
    smallest = measure_memory("vww_0.25_96", "fixed8", lowered).smallest
    assert needed(lowered.replanned(ram=smallest).plan) <= smallest
    with pytest.raises(errors.DoesNotFitError):
        lowered.replanned(ram=smallest - 1)


def test_memory_rows_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert networks.main(["--memory", "--network", "kws", "--numerics", "fixed8", "--format", "json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert list(line)[:6] == ["network", "numerics", "map_by_map", "streaming", "smallest", "smallest_plan"]
    assert networks.main(["--memory", "--network", "kws", "--numerics", "fixed8"]) == 0
    text = capsys.readouterr().out
    assert f"{line['smallest']:,}" in text
    assert "200" in text and "throughput" not in text  # memory of peers only


# -- published figures ------------------------------------------------------------------------------------------------


def test_every_figure_says_where_it_is_from() -> None:
    figures = network_peers.read()
    assert {figure.network for figure in figures} == set(NETWORKS) - {"digits"}
    assert len({(f.peer, f.version, f.source, f.where, f.measure) for f in figures}) == len(figures)
    for figure in figures:
        # An address of one commit cannot change under the figure.
        assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/blob/[0-9a-f]{40}/\S+", figure.source), figure
        if figure.measure in ("latency", "throughput"):
            assert "Cortex" in figure.platform


FIGURE = {
    "network": "kws",
    "peer": "a",
    "version": "1",
    "model": "m",
    "measure": "arena",
    "value": 1.5,
    "unit": "KiB",
    "platform": "any",
    "source": "https://example.org",
    "where": "table 1",
}


def figure_file(folder: Path, figure: dict[str, object]) -> Path:
    lines = [f"{key} = {json.dumps(value)}" for key, value in figure.items()]
    path = folder / "peers.toml"
    path.write_text("[[figure]]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_figure_is_read(tmp_path: Path) -> None:
    (figure,) = network_peers.read(figure_file(tmp_path, FIGURE))
    assert (figure.value, figure.note) == (1.5, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None}, "source"),
        ({"source": ""}, "source is empty"),
        ({"source": "my notes"}, "not an address"),
        ({"where": None}, "where"),
        ({"value": "1"}, "value"),
        ({"value": True}, "value"),
        ({"value": 0}, "value"),
        ({"unit": "ms"}, "arena"),
        ({"measure": "speed"}, "speed"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_incomplete_figures_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    figure = {key: value for key, value in {**FIGURE, **change}.items() if value is not None}
    path = figure_file(tmp_path, figure)
    with pytest.raises(errors.BdnetError) as error:
        network_peers.read(path)
    assert message in str(error.value)
    assert "figure 1" in str(error.value)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    path.write_text("[figures]\n", encoding="utf-8")
    with pytest.raises(errors.BdnetError):
        network_peers.read(path)
