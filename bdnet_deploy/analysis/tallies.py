"""What ``evaluate`` counts: per back end, so that it can stop and go on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from bdnet_deploy.errors import BdnetError, ModelFileError, UsageError
from bdnet_deploy.files import write_atomic
from bdnet_deploy.graph import Array, Graph

#: Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054
_FORMAT = 1


def wilson(correct: int, samples: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share by Wilson's score (1927), as shares from 0 to 1.

    Unlike the normal approximation it is right near 0 and 1, where good networks are.
    """
    if samples == 0:
        return 0.0, 1.0
    p, z2 = correct / samples, _Z * _Z
    middle = (p + z2 / (2 * samples)) / (1 + z2 / samples)
    half = _Z / (1 + z2 / samples) * math.sqrt(p * (1 - p) / samples + z2 / (4 * samples * samples))
    return (middle - half if correct else 0.0), (middle + half if correct < samples else 1.0)


@dataclass
class Tally:
    """Counts of one back end.

    Attributes:
        name: as reports have it.
        samples: how many it saw; ``labelled`` of them with a class.
        correct, top5: how many of these were right, among the first five.
        differ: predictions that are not the first back end's; ``distance``: the largest of their logits.
        not_finite: samples with a NaN or infinite logit.
        same_as: the first back end of the same numerics, whose bytes this one's must be; ``unequal``: samples of other bytes.
        class_correct: class number -> how many of that class were right.
        flips: layer -> [values, signs and trits that are not those of the float reference].
    """

    name: str
    samples: int = 0
    labelled: int = 0
    correct: int = 0
    top5: int = 0
    differ: int = 0
    distance: float = 0.0
    not_finite: int = 0
    same_as: str | None = None
    unequal: int = 0
    class_correct: dict[str, int] = field(default_factory=dict)
    flips: dict[str, list[int]] = field(default_factory=dict)

    def add(self, logits: Array, first: Array, y: Array | None) -> None:
        """One batch: (N, classes) of this back end and of the first one, (N,) class numbers."""
        predicted = logits.argmax(-1)
        self.samples += len(logits)
        self.differ += int((predicted != first.argmax(-1)).sum())
        finite = np.isfinite(logits).all(-1)
        self.not_finite += int((~finite).sum())
        with np.errstate(invalid="ignore"):
            distances = np.abs(logits - first)
        self.distance = max(self.distance, float(distances[np.isfinite(distances)].max(initial=0.0)))
        if y is None:
            return
        right = predicted == y
        self.labelled += len(y)
        self.correct += int(right.sum())
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :5]
        self.top5 += int((best == y[:, None]).any(-1).sum())
        for number in np.unique(y):
            key = str(int(number))
            self.class_correct[key] = self.class_correct.get(key, 0) + int(right[y == number].sum())

    def add_flips(self, layer: str, values: int, flips: int) -> None:
        before = self.flips.setdefault(layer, [0, 0])
        before[0] += values
        before[1] += flips


@dataclass
class State:
    """How far a run is. ``key`` says what it is a run of: part -> digest or text."""

    key: dict[str, str]
    tallies: list[Tally]
    done: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    skipped: list[list[str]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it whole or not at all.

        Raises:
            BdnetError: the file cannot be written.
        """
        content = {"format": _FORMAT, **asdict(self)}
        try:
            write_atomic(path, json.dumps(content, sort_keys=True, indent=1) + "\n")
        except OSError as error:
            why = error.strerror or str(error)
            raise BdnetError("the state of the run cannot be written", where=str(path), why=why) from error

    @staticmethod
    def load(path: Path, key: Mapping[str, str], names: list[str]) -> State:
        """A state that was saved for the same run; a new one where there is no file.

        Raises:
            UsageError: it is the state of another run; what differs is named.
            ModelFileError: it is no state, or damaged.
        """
        if not path.exists():
            return State(dict(key), [Tally(name) for name in names])
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                raise ValueError("another format")
            tallies = [Tally(**_checked(Tally, item)) for item in content.pop("tallies")]
            state = State(tallies=tallies, **_checked(State, content, without="tallies"))
        except OSError as error:
            raise BdnetError("the state cannot be read", where=str(path), why=error.strerror or str(error)) from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelFileError(
                "this is no state of a run of evaluate, or it is damaged",
                where=str(path),
                why=f"{type(error).__name__}: {error}",
                fix="remove the file: the run begins anew; or name another one",
            ) from error
        other = [part for part in key if state.key.get(part) != key[part]]
        if other:
            raise UsageError(
                f"the state is one of a run with {' and '.join(f'another {part}' for part in other)}",
                where=str(path),
                fix="give what that run had, name another state file, or remove this one",
            )
        return state


def _checked(cls: type, content: Any, *, without: str = "") -> dict[str, Any]:
    """The fields of a dataclass out of JSON, each of its own kind.

    Raises:
        TypeError, ValueError: they are not.
    """
    model: Any = Tally("") if cls is Tally else State({}, [])
    if not isinstance(content, dict) or set(content) != {f.name for f in fields(cls)} - {without}:
        raise ValueError(f"the fields of a {cls.__name__} are others")
    for name, value in content.items():
        default = getattr(model, name)
        kinds: tuple[type, ...] = (str, type(None)) if name == "same_as" else (type(default),)
        kinds = (float, int) if kinds == (float,) else kinds
        entry: Any = value
        if not isinstance(value, kinds) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise TypeError(f"{name} is {str(value)[:80]!r}")
        numbers = {"class_correct": int, "classes": int, "key": str}.get(name)
        if numbers is not None and not all(isinstance(v, numbers) for v in entry.values()):
            raise TypeError(f"{name} has values of another kind")
        if name == "flips" and not all(
            isinstance(v, list) and len(v) == 2 and all(isinstance(n, int) for n in v) for v in entry.values()
        ):
            raise TypeError("flips are pairs of numbers")
        if name == "skipped" and not all(
            isinstance(v, list) and len(v) == 2 and all(isinstance(n, str) for n in v) for v in entry
        ):
            raise TypeError("skipped are pairs of texts")
    return content


def graph_digest(graph: Graph) -> str:
    """Equal for equal graphs: operators, wires and constants."""
    numbers = {value: i for i, value in enumerate(graph.inputs)}
    sha = hashlib.sha256(repr([v.type for v in graph.inputs]).encode())
    for node in graph.nodes:
        for value in node.inputs:
            if value.data is not None:
                sha.update(repr(value.type).encode() + np.ascontiguousarray(value.data).tobytes())
            else:
                sha.update(str(numbers[value]).encode())
        numbers[node.output] = len(numbers)
        sha.update(repr(node.op).encode())
    sha.update(repr([numbers[v] for v in graph.outputs]).encode())
    return sha.hexdigest()
