"""Views, permutations, slices, repeats, paddings and concatenations, by where each element comes from.

The moving operators before a tensor are run on numbers that say which element each is; what arrives is an index map,
however the code is written. :mod:`bdnet_deploy.importers.index_maps` turns it into operators.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bdnet_deploy.graph import Array, Graph
from bdnet_deploy.importers.index_maps import FILL
from bdnet_deploy.importers.torch.aten import FILLS, IDENTITY, MOVES, shown
from bdnet_deploy.importers.torch.emitted import Emitted, joined, moved, unpadded
from bdnet_deploy.importers.torch.layers import refuse
from bdnet_deploy.importers.torch.layout import Layout, fits, from_graph, to_graph
from bdnet_deploy.importers.torch.trace import Step, Traced, keeps_values, run_step

_MAX_STEPS = 64
_MAX_CONSTANTS = 64
_MANY_PIECES = 3  # of each source: then all are joined before anything is moved


@dataclass(eq=False)
class Moved:
    """Where the elements of ``target`` come from: ``ids`` has its shape.

    An id from ``starts[i]`` on is an element of ``sources[i]``, in row-major order; one below the number of
    ``constants`` is that constant.
    """

    target: Traced
    ids: Array
    sources: list[Traced]
    starts: list[int]
    constants: list[float]


def find_moves(target: Traced) -> Moved:
    """Follow the moving operators before ``target`` back to the tensors that others compute.

    Raises:
        UnsupportedError: too many operators in one chain, or constants of many values among the elements.
    """
    step = target.step
    assert step is not None
    steps: list[Step] = []
    sources: list[Traced] = []
    pending = [target]
    seen = {target}
    while pending:
        traced = pending.pop()
        made_by = traced.step
        if made_by is None or (traced is not target and not is_move(traced)):
            sources.append(traced)
            continue
        if made_by not in steps:
            steps.append(made_by)
        if made_by.name in FILLS:
            continue
        for argument in made_by.inputs:
            if argument not in seen:
                seen.add(argument)
                pending.append(argument)
    if len(steps) > _MAX_STEPS:
        raise refuse(step, f"{len(steps)} moving operators in a chain", "simplify it")
    steps.sort(key=lambda s: next(o.index for o in s.outputs if o is not None))
    sources.sort(key=lambda s: s.index)
    return _Numbering(target, steps, sources).run()


def is_move(traced: Traced) -> bool:
    """Whether the tensor is made by moving elements (a padding of the map is kept for a convolution)."""
    step = traced.step
    if step is None or step.in_place:
        return False
    if step.name in FILLS:  # also the constant may be computed
        return not any(isinstance(step.argument(name), Traced) for name in ("value", "fill_value"))
    if step.name in IDENTITY:
        return keeps_values(step.inputs[0].dtype, traced.dtype)
    return step.name in MOVES and not is_map_padding(step) and not _reads_numbers(step)


def _reads_numbers(step: Step) -> bool:
    """Whether elements are chosen by computed indices, or their bits are read as another type."""
    if step.name in ("index", "index_select"):
        return len(step.inputs) > 1 or not isinstance(step.argument("self"), Traced)
    return step.name == "view" and step.argument("dtype") is not None


def is_map_padding(step: Step) -> bool:
    """Whether a step adds constant rows and columns around a map."""
    if step.name != "constant_pad_nd":
        return False
    amounts = [int(a) for a in step.argument("pad")]
    return (
        len(step.inputs[0].shape) == 4 and step.inputs[0].shape[0] == 1 and min(amounts) >= 0 and not any(amounts[4:])
    )


@dataclass(eq=False)
class _Numbering:
    target: Traced
    steps: list[Step]
    sources: list[Traced]
    constants: list[float] = field(default_factory=lambda: [0.0])

    def run(self) -> Moved:
        env: dict[Traced, Tensor] = {}
        starts: list[int] = []
        position = _MAX_CONSTANTS
        for source in self.sources:
            count = math.prod(source.shape)
            env[source] = torch.arange(position, position + count, dtype=torch.float64).reshape(source.shape)
            starts.append(position)
            position += count
        for step in self.steps:
            if step.name in FILLS:
                self._fill(step, env)
            else:
                run_step(step, env, functools.partial(self._leaf, step, env))
        ids = env[self.target].numpy().astype(np.int64)
        return Moved(self.target, ids, self.sources, starts, self.constants)

    def _leaf(self, step: Step, env: dict[Traced, Tensor], arg: object) -> object:
        if isinstance(arg, Traced):
            return env[arg]
        if isinstance(arg, Tensor) and step.name not in ("index", "index_select"):  # there it is a list of places
            return self._number(step, arg)
        if step.name == "constant_pad_nd" and arg is step.argument("value") and isinstance(arg, int | float):
            return float(self._number(step, torch.tensor(float(arg))))
        return torch.float64 if isinstance(arg, torch.dtype) else arg

    def _fill(self, step: Step, env: dict[Traced, Tensor]) -> None:
        shapes = {t: torch.zeros(t.shape, dtype=t.dtype) for t in step.inputs}
        results: dict[Traced, Tensor] = dict(shapes)
        run_step(step, results, lambda arg: results[arg] if isinstance(arg, Traced) else arg)
        for output in step.outputs:
            if output is not None:
                env[output] = self._number(step, results[output].double())

    def _number(self, step: Step, constant: Tensor) -> Tensor:
        """The numbers of a constant's values."""
        values, places = np.unique(constant.double().numpy(), return_inverse=True)
        for value in values.tolist():
            if value not in self.constants:
                self.constants.append(value)
        if len(self.constants) > _MAX_CONSTANTS:
            raise refuse(
                step,
                "a constant of many values is joined with an activation",
                "add it instead, or leave it out of the model to deploy",
            )
        numbers = np.array([self.constants.index(v) for v in values.tolist()], np.float64)
        return torch.from_numpy(numbers[places].reshape(tuple(constant.shape)))


def emit_moves(graph: Graph, found: Moved, parts: Sequence[Emitted], want: Layout | None) -> Emitted:
    """The operators; ``parts`` are the emitted sources.

    Raises:
        UnsupportedError: the graph has no operators for it.
    """
    step = found.target.step
    assert step is not None
    layouts = [want] if want else [x for x in (Layout.FIRST, Layout.LAST) if fits(found.target.shape, x)]
    if want is None and len(layouts) == 2:
        # Without a wish the one that costs nothing, or else that of the source.
        free = [x for x in layouts if _is_free(found, parts, x)]
        layouts = free or sorted(layouts, key=lambda x: x is not parts[0].layout) if parts else layouts
    if not layouts:
        raise refuse(step, f"the tensor has shape {found.target.shape}", "keep a batch of 1 in front")
    return _Emission(graph, found, parts, layouts[0], step).emit()


def _places(found: Moved, parts: Sequence[Emitted], layout: Layout) -> tuple[Array, Array]:
    """(source, element of its value) of each element as the graph has it; source -1 - k for constant k."""
    ids = to_graph(found.ids, layout)
    owner = np.searchsorted(np.array([*found.starts]), ids, side="right") - 1
    owner = np.where(ids < _MAX_CONSTANTS, -1 - ids, owner)
    element = np.zeros_like(ids)
    for i, (source, start, part) in enumerate(zip(found.sources, found.starts, parts, strict=True)):
        mine = owner == i
        place = from_graph(np.arange(math.prod(source.shape)), source.shape, part.layout).ravel()
        element[mine] = place[ids[mine] - start]
    return owner, element


def _is_free(found: Moved, parts: Sequence[Emitted], layout: Layout) -> bool:
    owner, element = _places(found, parts, layout)
    same = element.size == math.prod(parts[0].value.type.shape)
    return same and not owner.any() and bool((element.ravel() == np.arange(element.size)).all())


@dataclass(eq=False)
class _Emission:
    graph: Graph
    found: Moved
    parts: Sequence[Emitted]
    layout: Layout
    step: Step

    @property
    def name(self) -> str:
        return f"{self.step.path or shown(self.step.name)}"

    def emit(self) -> Emitted:
        owner, element = _places(self.found, self.parts, self.layout)
        if owner.max() < 0:
            raise refuse(self.step, "nothing of it depends on the input", "leave it out of the model to deploy")
        return self._piece(owner, element)

    def _piece(self, owner: Array, element: Array) -> Emitted:
        sources = np.unique(owner)
        if (sources >= 0).sum() == 1 and (sources < 0).sum() <= 1:
            (source,) = sources[sources >= 0]
            return self._moved(self.parts[source], np.where(owner == source, element, FILL), sources[sources < 0])
        axis, cuts = self._cuts(owner)
        if len(cuts) >= _MANY_PIECES * len(sources) and (joined_first := self._of_one(owner, element)) is not None:
            return joined_first
        pieces = [
            self._piece(o, e) for o, e in zip(np.split(owner, cuts, axis), np.split(element, cuts, axis), strict=True)
        ]
        return joined(self.graph, pieces, axis, self.step.where, f"{self.name}.concat", self.step.path)

    def _of_one(self, owner: Array, element: Array) -> Emitted | None:
        """The pieces moved out of all sources side by side, where these have the same pixels: for what is interleaved."""
        parts = [unpadded(self.graph, p, self.step.where) for p in self.parts]
        shapes = [p.value.type.shape for p in parts]
        filled = np.unique(owner[owner < 0])
        if len({s[:-1] for s in shapes}) > 1 or len(filled) > 1:
            return None
        axis = len(shapes[0]) - 1
        name = f"{self.name}.concat"
        whole = joined(self.graph, parts, axis, self.step.where, name, self.step.path)
        starts = np.cumsum([0, *(s[-1] for s in shapes)])
        index = np.full(element.shape, FILL)
        for i, shape in enumerate(shapes):
            mine = owner == i
            pixel, channel = np.divmod(element[mine], shape[-1])
            index[mine] = pixel * starts[-1] + starts[i] + channel
        return self._moved(whole, index, filled)

    def _moved(self, emitted: Emitted, index: Array, filled: Array) -> Emitted:
        """The elements ``index`` of ``emitted``; ``filled`` holds the owner (one at most) of those that are FILL."""
        fill = self.found.constants[-1 - filled[0]] if len(filled) else 0.0
        places = {"where": self.step.where, "name": self.name, "source": self.step.path}
        return moved(self.graph, emitted, index, self.layout, fill=fill, **places)

    def _cuts(self, owner: Array) -> tuple[int, list[int]]:
        """The axis and the places between pieces that come from one tensor each, constants with a neighbour."""
        for axis in range(owner.ndim - 1, 0, -1):
            lines = np.moveaxis(owner, axis, 0).reshape(owner.shape[axis], -1)
            low = np.where(lines >= 0, lines, len(self.parts)).min(1)
            cuts, current = [], -1
            for i, (first, line) in enumerate(zip(low.tolist(), lines, strict=True)):
                if first == len(self.parts):
                    continue
                if (np.where(line >= 0, line, first) != first).any():
                    break
                if current not in (-1, first):
                    cuts.append(i)
                current = first
            else:
                if cuts:
                    return axis, cuts
        raise refuse(
            self.step,
            "it joins different tensors element by element",
            "join them with torch.cat along one axis",
        )
