"""Every network of the zoo through every exporter and the runtimes that the files are for: is it the same network?

    python benchmarks/export_matrix.py [--network reactnet_a] [--form "tflite int8"] [--format text|json|markdown]

Each network is exported, the file is read back (is it the same graph?), every layer runs alone in the runtime, fed the numpy
reference's own inputs, and the whole file runs on 50 inputs. Networks of the zoo have the small sizes of
``bdnet_deploy.models.small`` and random weights of a fixed seed; ``digits`` is trained. The exit code is 1 if anything differs.

Columns: "bits" are values of bits, trits and integers that differ in single layers (near ties of a comparison are counted apart),
"layers" the largest distance of a real layer as a share of its largest value (limit 1e-5). Then of whole runs: the share of signs
that flipped on the way, inputs without any flip and the largest distance of their outputs (limit 1e-4 of the largest), the largest
distance of all, and predictions that changed. An int8 file is compared with the numpy
reference of its own operators, each alone; predictions of untrained networks are counted there and not judged.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from network_models import DIGITS, find, random_model

from bdnet_deploy import errors
from bdnet_deploy.analysis.comparing.verdicts import RunError, VerifyError
from bdnet_deploy.errors import BdnetError, UnsupportedError
from bdnet_deploy.formats import TARGETS
from bdnet_deploy.graph import difference
from bdnet_deploy.importers.onnx import own as onnx_own
from bdnet_deploy.importers.tflite import own as tflite_own
from bdnet_deploy.loading import load
from bdnet_deploy.model import Model
from bdnet_deploy.models.small import SMALL
from bdnet_deploy.report import Column, Report, Table, Value, csv_view, json_view, markdown, text
from bdnet_deploy.samples import Samples

#: Name of a form -> target, profile, int8.
FORMS = {
    "tflite": ("tflite", "stock", False),
    "tflite int8": ("tflite", "stock", True),
    "onnx": ("onnx", "portable", False),
}
INPUTS = 50
_VIEWS = {"text": text.render, "json": json_view.render, "markdown": markdown.render, "csv": csv_view.render}


def networks() -> list[str]:
    """Names: the trained network of the examples, the zoo, and one of full size."""
    return ["digits", *SMALL, "mobilenet_v1_224"]


def build(name: str) -> tuple[Model, Samples]:
    """A network and inputs for it.

    Raises:
        UsageError: unknown name.
    """
    if name not in networks():
        raise errors.unknown_name("network", name, networks())
    if name == "digits":
        model = load(DIGITS / "model.pt")
        return model, model.samples(DIGITS / "test.npz", limit=INPUTS)
    model = find(name).build() if name not in SMALL else random_model(name, **SMALL[name])
    count = INPUTS if name in SMALL else 4  # of the large one: a layer's values on 50 images would take gigabytes
    x = np.random.default_rng(7).standard_normal((count, *model.sample_shape)).astype(np.float32)
    return model, Samples(x, None)


def measure(name: str, form: str, folder: Path) -> Iterator[dict[str, Value]]:
    """One row a runtime."""
    target, profile, int8 = FORMS[form]
    model, samples = build(name)
    path = folder / f"{name}{TARGETS[target]}"
    start = time.perf_counter()
    model.float_graph()
    artifact = model.export(target, path, profile=profile, int8=int8, calibrate=samples if int8 else None)
    seconds = time.perf_counter() - start
    try:
        # Signs of an untrained network lie near their thresholds: int8 flips them by the dozen, and its predictions mean nothing.
        report = model.verify(
            path, inputs=samples, limit=INPUTS, min_agreement=0.0 if int8 and name != "digits" else None
        )
    except (VerifyError, RunError) as error:
        report = error.report
    size = sum(p.stat().st_size for p in artifact.paths)
    common: dict[str, Value] = {"network": name, "form": form, "bytes": size, "export_s": seconds}
    if int8:  # an int8 file carries no graph
        yield from (common | row for row in _int8_rows(report))
        return
    reader = tflite_own if target == "tflite" else onnx_own
    common["graph"] = "same" if difference(model.float_graph(), reader.read_graph(path)[0]) is None else "DIFFERS"
    for runtime in _runtimes(report):
        yield common | _float_row(report, runtime)


def _runtimes(report: Report) -> list[str]:
    checks = [str(row["check"]) for row in report.table("comparisons").rows]
    return list(dict.fromkeys(c.removesuffix(" layer") for c in checks if c.endswith(" layer")))


def _float_row(report: Report, runtime: str) -> dict[str, Value]:
    rows = report.table("comparisons").rows
    alone = [row for row in rows if row["check"] == f"{runtime} layer"]
    exact = [row for row in alone if row["distance"] is None]
    real = [row for row in alone if row["distance"] is not None]
    whole = next(row for row in rows if row["check"] == "end to end" and row["layer"] == runtime)
    quiet = [row for row in rows if row["check"] == "inputs without flips" and row["layer"] == runtime]
    flips = [row for row in report.tables[1].rows if row["runtime"] == runtime] if len(report.tables) > 2 else []
    return {
        "runtime": runtime,
        "exact_values": _sum(exact, "compared"),
        "exact_different": _sum(exact, "different"),
        "near_ties": _sum(exact, "near_ties"),
        "real_values": _sum(real, "compared"),
        "real_different": _sum(real, "different"),
        "flips": _sum(flips, "flips"),
        "inputs": whole["compared"],
        "quiet": _sum(quiet, "compared"),
        "quiet_distance": max((float(str(r["distance"])) for r in quiet), default=None),
        "distance": whole["distance"],
        "top1_changed": int(str(whole["near_ties"])) + int(str(whole["different"])),
        "verdict": report.facts["verdict"],
    }


def _int8_rows(report: Report) -> Iterator[dict[str, Value]]:
    rows = report.table("comparisons").rows
    for runtime in dict.fromkeys(str(row["layer"]) for row in rows if row["check"] == "end to end"):
        alone = [r for r in rows if r["check"] == f"{runtime} operator"]
        exact = [r for r in alone if r["distance"] is None]
        real = [r for r in alone if r["distance"] is not None]
        whole = next(r for r in rows if r["check"] == "end to end" and r["layer"] == runtime)
        yield {
            "runtime": runtime,
            "exact_values": _sum(exact, "compared"),
            "exact_different": _sum(exact, "different"),
            "near_ties": _sum(exact, "near_ties"),
            "real_values": _sum(real, "compared"),
            "real_different": _sum(real, "different"),
            "inputs": whole["compared"],
            "distance": whole["distance"],
            "top1_changed": int(str(whole["near_ties"])) + int(str(whole["different"])),
            "verdict": report.facts["verdict"] if exact and real else "operators not compared",
        }


def _sum(rows: list[dict[str, Value]], key: str) -> int:
    return sum(int(str(row[key])) for row in rows)


def table() -> Table:
    number = {"align": "right", "format": ","}
    return Table(
        "exports",
        [
            Column("network"),
            Column("form"),
            Column("runtime"),
            Column("bytes", **number),
            Column("export_s", "export [s]", align="right", format=".1f"),
            Column("graph", "read back"),
            Column("exact_values", "exact values", **number),
            Column("exact_different", "different", **number),
            Column("near_ties", "near ties", **number),
            Column("real_values", "real values", **number),
            Column("real_different", "beyond 1e-5", **number),
            Column("flips", **number),
            Column("inputs", **number),
            Column("quiet", "without flips", **number),
            Column("quiet_distance", "their distance", align="right", format=".2g"),
            Column("distance", "distance of all", align="right", format=".2g"),
            Column("top1_changed", "top-1 changed", **number),
            Column("verdict"),
        ],
        notes=[
            "Values of single layers, each fed the reference's inputs; then whole runs, where one near tie that flips cascades."
        ],
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--network", action="append", help=f"one of {', '.join(networks())}; may be given several times"
    )
    parser.add_argument("--form", action="append", choices=FORMS, help="may be given several times")
    parser.add_argument("--format", default="text", choices=_VIEWS)
    options = parser.parse_args(arguments)
    result = table()
    try:
        with tempfile.TemporaryDirectory(prefix="bdnet-matrix-") as name:
            for network in options.network or networks():
                for form in options.form or FORMS:
                    print(f"{network}: {form}", file=sys.stderr)
                    try:
                        for row in measure(network, form, Path(name)):
                            result.add(**row)
                    except UnsupportedError as error:
                        print(error, file=sys.stderr)
                        result.add(network=network, form=form, verdict=f"refused: {error.what}")
    except BdnetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(_VIEWS[options.format](Report("export matrix", {}, [result])))
    wrong = [row for row in result.rows if row["verdict"] != "equal" or row.get("graph", "same") != "same"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
