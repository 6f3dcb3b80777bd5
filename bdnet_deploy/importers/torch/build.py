"""From the outputs of a recorded forward pass back to its input: each tensor that matters becomes graph operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bdnet_deploy.errors import UnsupportedError, UsageError
from bdnet_deploy.graph import DType, Graph, GraphError
from bdnet_deploy.importers.torch.aten import (
    BATCH_NORMS,
    CONSTANT_AFFINE,
    CONVOLUTIONS,
    IDENTITY,
    LINEARS,
    LOG_SOFTMAXES,
    MATRIX_PRODUCTS,
    MAX_POOLS,
    MOVES,
    REDUCTIONS,
    SOFTMAXES,
    UNARY,
    shown,
)
from bdnet_deploy.importers.torch.cone import is_discrete, is_elementwise
from bdnet_deploy.importers.torch.constants import constant_affine, constant_map
from bdnet_deploy.importers.torch.emitted import Emitted, in_layout, real
from bdnet_deploy.importers.torch.layers import (
    FIRST_LAYER,
    average_pool,
    batch_norm,
    emit_product,
    product_input,
    refuse,
    unary_function,
)
from bdnet_deploy.importers.torch.layout import Layout, along_channels, fits
from bdnet_deploy.importers.torch.moves import find_moves, is_map_padding, is_move
from bdnet_deploy.importers.torch.pairs import (
    Levels,
    find_choice,
    find_remainder,
    positive_divisor,
    without_divisor,
    without_lower_level,
)
from bdnet_deploy.importers.torch.piecewise import find_limits, find_two_lines
from bdnet_deploy.importers.torch.quantizer import Quantizer, find_quantizer
from bdnet_deploy.importers.torch.recorder import record
from bdnet_deploy.importers.torch.reductions import find_reduction
from bdnet_deploy.importers.torch.rules import (
    Rule,
    Source,
    affine_rule,
    broadcast_rule,
    comparison_rule,
    limits_rule,
    lines_rule,
    logic_rule,
    map_rule,
    matmul_rule,
    max_pool_rule,
    move_rule,
    norm_rule,
    operator_rule,
    pad_rule,
    product_rule,
    quantize_rule,
    quotient_rule,
    reduce_rule,
    renumber_rule,
    softmax_rule,
    staircase_rule,
    sum_rule,
    unary_rule,
)
from bdnet_deploy.importers.torch.staircase import Staircase, find_staircase
from bdnet_deploy.importers.torch.ties import is_structural, met_ties
from bdnet_deploy.importers.torch.trace import Step, Trace, Traced, keeps_values
from bdnet_deploy.importers.torch.training import explain_unfinished

_DEFAULT_ADVICE = "replace it by a supported operator, or leave it out of the model to deploy; see docs/importing.md"
_ADVICE = {
    "min": "if it is the range of an activation's quantizer, fix that range before importing",
}

_ARITHMETIC = CONSTANT_AFFINE | UNARY.keys()

# Between the input and the first layer there can be normalisation and reshaping; of these, some are not worth naming.
_PASSING = IDENTITY | MOVES | REDUCTIONS | CONSTANT_AFFINE | BATCH_NORMS | MAX_POOLS
_SILENT = IDENTITY | MOVES | MAX_POOLS


def import_module(
    module: nn.Module, input_shape: Sequence[int], *, name: str = "model", sample: Tensor | None = None
) -> Graph:
    """The graph, with numerics ``"real"``, of a PyTorch module.

    Copies of the module run in evaluation mode; the module itself is not changed. ``graph.reasons`` says of each
    convolution and linear layer that is not 1-bit why; ``node.source`` is the path of the submodule, e.g.
    ``"body.3.conv"``. Feature maps are NHWC, whatever their order in PyTorch.

    Args:
        module: any module of one tensor argument.
        input_shape: its input's shape as PyTorch sees it: (1, C, H, W), or (1, C).
        name: of the graph.
        sample: an input of that shape to record with; default: normally distributed numbers, the same every time.

    Raises:
        UsageError: the shape or sample is not of that kind, or the module does not run on it.
        UnsupportedError: an operator that the graph does not have, control flow that depends on the input, or parameters
            that are NaN or infinite; the place is named.
    """
    return import_recorded(module, input_shape, name=name, sample=sample).graph


@dataclass(frozen=True, eq=False)
class Imported:
    """A graph with the record that it was made from: ``emitted`` holds what of the record the graph's values are."""

    graph: Graph
    trace: Trace
    emitted: Mapping[Source, Emitted]


def import_recorded(
    module: nn.Module, input_shape: Sequence[int], *, name: str = "model", sample: Tensor | None = None
) -> Imported:
    """As :func:`import_module`, with the record: to compare value by value."""
    x = _sample(module, tuple(int(n) for n in input_shape), sample)
    _check_parameters(module)
    with torch.random.fork_rng(devices=[]):
        trace = record(module, x)
    builder = _Builder(trace, name)
    try:
        graph = builder.build()
        if met := met_ties(trace, x, builder.without_tie):
            builder = _Builder(trace, name, met)
            graph = builder.build()
    except GraphError as error:
        raise UnsupportedError("the model cannot be carried over", why=str(error), fix=_DEFAULT_ADVICE) from error
    explain_unfinished(graph, module)
    return Imported(graph, trace, builder.done)


def _sample(module: nn.Module, shape: tuple[int, ...], sample: Tensor | None) -> Tensor:
    if not isinstance(module, nn.Module):
        raise UsageError(f"this is a {type(module).__name__}", fix="give an instance of torch.nn.Module")
    if len(shape) not in (2, 4) or shape[0] != 1 or min(shape) < 1:
        raise UsageError(
            f"input shape {'x'.join(map(str, shape))}",
            why="an input has batch 1, then channels, then height and width",
            fix="for example 1x3x224x224",
        )
    if sample is None:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if tuple(sample.shape) != shape:
        raise UsageError(f"the sample has shape {tuple(sample.shape)}, the input {shape}")
    return sample.detach().cpu().float()


def _check_parameters(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UnsupportedError(
                f"parameter '{name}' holds NaN or infinity",
                where=name.rpartition(".")[0] or None,
                why="no numerics can carry it",
                fix="train again, or repair the checkpoint",
            )


class _Builder:
    def __init__(self, trace: Trace, name: str, ties: Collection[Traced] = ()) -> None:
        self.trace = trace
        self.ties = ties  # sources of quantizers that meet sign(0)
        self.without_tie: list[Quantizer] = []  # those whose sign(0) was taken for a coincidence, as they were
        self.graph = Graph(name)
        self.done: dict[Source, Emitted] = {}
        self.rules: dict[Source, Rule] = {}
        self.layers: dict[str, int] = {}  # source name -> how many convolutions bear it
        self.levels = Levels()
        self.near_misses: dict[Traced, str] = {}  # functions that are nearly quantizers -> what is missing
        self.staircases: dict[Traced, str] = {}  # quantizers of more than three levels -> how many

    def build(self) -> Graph:
        shape = self.trace.input.shape
        nhwc = (1, *shape[2:], shape[1])
        self._note(self.trace.input, Emitted(self.graph.input("input", nhwc, DType.F64)))
        for output in self.trace.outputs:
            if len(output.shape) not in (2, 4) or output.shape[0] != 1:
                raise UnsupportedError(
                    f"an output has shape {tuple(output.shape)}",
                    where=output.step.where if output.step else None,
                    why="outputs are vectors (1, C) or maps (1, C, H, W)",
                    fix="reshape it, or leave it out of what the model returns",
                )
            self._make((output, Layout.FIRST))
            place = output.step.where if output.step else "the output"
            self.graph.outputs.append(real(self.graph, self.done[output, Layout.FIRST], place))
        self.graph.prune()
        return self.graph

    def _make(self, wanted: Source) -> None:
        """Emit all that ``wanted`` is made from, then it. A stack instead of recursion: networks are deep."""
        stack = [wanted]
        while stack:
            source = stack[-1]
            if self._known(source):
                stack.pop()
                continue
            if source not in self.rules:
                self.rules[source] = self._rule(*source)
            rule = self.rules[source]
            missing = [s for s in rule.sources if not self._known(s)]
            if missing:
                stack.extend(sorted(missing, key=lambda s: -s[0].index))
            else:
                self._note(source[0], rule.emit(*(self.done[s] for s in rule.sources)))

    def _note(self, traced: Traced, emitted: Emitted) -> None:
        self.done[traced, emitted.layout] = emitted
        self.done.setdefault((traced, None), emitted)

    def _known(self, source: Source) -> bool:
        """Whether it is emitted, if need be by transposing what is there in another layout."""
        traced, layout = source
        if source in self.done:
            return True
        if (traced, None) not in self.done or layout is None:
            return False
        other = self.done[traced, None]
        if is_move(traced) and source not in self.rules:
            return False  # it may cost nothing to move its sources there at once
        place = traced.step.where if traced.step else "the input"
        self.done[source] = in_layout(self.graph, other, traced.shape, layout, place)
        return True

    def _rule(self, traced: Traced, want: Layout | None) -> Rule:
        """What makes ``traced``; in the layout ``want`` if its sources can have that, else in one that they can have."""
        rule = self._match(traced, want)
        for x, layout in rule.sources:
            if layout is not None and not fits(x.shape, layout):
                if layout is want:
                    return self._rule(traced, None)
                assert traced.step is not None
                raise self._unsupported(
                    traced.step, f"its input has shape {x.shape}, whose first axis is no batch of 1"
                )
        return rule

    def _match(self, traced: Traced, want: Layout | None) -> Rule:
        step = traced.step
        assert step is not None
        name = step.name
        if name in MATRIX_PRODUCTS and _wraps(traced):
            raise self._unsupported(step, "it is of small integers, which overflow")
        if name in MATRIX_PRODUCTS and not _constant_factor(step):
            return matmul_rule(self.graph, step)
        if name in CONVOLUTIONS | LINEARS | MATRIX_PRODUCTS:
            return self._product(step)
        if name in BATCH_NORMS and traced is step.outputs[0]:
            mul, add = batch_norm(step)
            x = step.inputs[0]
            layout = Layout.FIRST if x.shape[0] == 1 else Layout.LAST
            if layout is Layout.LAST and len(x.shape) > 2:
                raise self._unsupported(step, f"its input has a batch of {x.shape[0]}")
            mul, add = (along_channels(p, x.shape, layout) for p in (mul, add))
            return affine_rule(self.graph, step, (x, layout), mul, add)
        if name in MAX_POOLS and traced is step.outputs[0]:
            return max_pool_rule(self.graph, step)
        if name in SOFTMAXES or name in LOG_SOFTMAXES:
            return softmax_rule(self.graph, step)
        if name in ("native_layer_norm", "native_group_norm") and traced is step.outputs[0]:
            return norm_rule(self.graph, step)
        if name in REDUCTIONS:
            return self._reduction(traced, step)
        if is_elementwise(step) and not is_move(traced):
            return self._elementwise(traced, step, want)
        if name in IDENTITY and len(step.inputs) == 1:
            x = step.inputs[0]
            if x.shape == traced.shape and keeps_values(x.dtype, traced.dtype):
                return Rule([(x, want)], lambda emitted: emitted)
        if name == "constant_pad_nd" and is_map_padding(step):
            return pad_rule(self.graph, step)
        if is_move(traced):
            return move_rule(self.graph, find_moves(traced), want)
        raise self._unsupported(step, "the graph has no such operator")

    def _unsupported(self, step: Step, why: str) -> UnsupportedError:
        return refuse(step, why, _ADVICE.get(shown(step.name), _DEFAULT_ADVICE))

    def _reduction(self, traced: Traced, step: Step) -> Rule:
        found = find_reduction(traced)
        if found is not None:
            return reduce_rule(self.graph, step, found)
        x = step.inputs[0]
        if step.name in ("avg_pool2d", "_adaptive_avg_pool2d") and len(x.shape) == 4 and x.shape[0] == 1:
            return operator_rule(self.graph, step, average_pool(step, x.shape), ".pool")
        raise self._unsupported(step, "it is no mean, sum or maximum over the map or over (adjacent) channels")

    def _elementwise(self, traced: Traced, step: Step, want: Layout | None) -> Rule:
        quantizer = find_quantizer(traced)
        if isinstance(quantizer, Quantizer):
            quantizer = without_divisor(quantizer)
            if quantizer.tie and quantizer.source not in self.ties and not is_structural(quantizer):
                self.without_tie.append(quantizer)
                quantizer = quantizer.without_tie()
            quantizer = without_lower_level(quantizer)
            return quantize_rule(self.graph, step, quantizer, want)
        staircase = find_staircase(traced)
        if isinstance(staircase, Staircase):
            self.staircases[traced] = staircase.reason
            return staircase_rule(self.graph, step, staircase, want)
        quantizer = staircase or quantizer
        if quantizer is not None:
            self.near_misses[traced] = quantizer
        logic = self.levels.logic(traced)
        if logic is not None:
            return logic_rule(self.graph, step, logic, want)
        renumbered = self.levels.renumbered(traced)
        if renumbered is not None:
            return renumber_rule(*renumbered, want)
        if step.name in _ARITHMETIC and _wraps(traced):
            kind = str(traced.dtype).removeprefix("torch.")
            raise refuse(step, f"sums and products of {kind} are not those of numbers", "convert to float before")
        one = len(step.inputs) == 1
        if step.name in CONSTANT_AFFINE and one:
            factors = constant_affine(step)
            broadcast = step.inputs[0].shape != traced.shape
            if factors is not None and (broadcast or not _lies_otherwise(step.inputs[0], factors[2])):
                mul, add, layout = factors
                suffix = ".scale" if np.any(mul != 1.0) else ".shift"
                if broadcast:
                    return broadcast_rule(self.graph, step, layout or want, mul, add, suffix)
                return affine_rule(self.graph, step, (step.inputs[0], layout or want), mul, add, suffix)
            per_pixel = constant_map(step) if step.name != "neg" else None
            if per_pixel is not None:
                return map_rule(self.graph, step, *per_pixel, want)
        lines = find_two_lines(traced)
        if lines is not None:
            return lines_rule(self.graph, step, lines, want)
        limits = find_limits(traced)
        if limits is not None and not (quantizer and limits.source.step and is_discrete(limits.source.step)):
            return limits_rule(self.graph, step, limits, want)
        if one and (function := unary_function(step)):
            return unary_rule(self.graph, step, function, want)
        remainder = find_remainder(traced)
        if remainder is not None:
            source, factor = remainder
            return affine_rule(self.graph, step, (source, want), np.full(1, factor), np.zeros(1))
        choice = find_choice(traced)
        if choice is not None:
            return comparison_rule(self.graph, choice.comparison, want, choice.on, choice.off)
        divisor = positive_divisor(step)
        if divisor is not None and (step.name == "reciprocal" or isinstance(step.argument("self"), Traced)):
            return quotient_rule(self.graph, step, divisor, want)
        if len(step.inputs) == 2 or (step.name == "mul" and _of_itself(step)):
            if step.name in ("add", "sub", "rsub"):
                return sum_rule(self.graph, step, want)
            if step.name == "mul":
                return product_rule(self.graph, step, want)
            if step.name in ("ge", "gt", "le", "lt"):
                return comparison_rule(self.graph, step, want)
        raise self._unsupported(step, quantizer or "it is neither a quantizer, nor affine, nor of two slopes")

    # -- convolution and linear layers --------------------------------------------------------------------------------

    def _product(self, step: Step) -> Rule:
        x, layout = product_input(step)

        def emit(emitted: Emitted) -> Emitted:
            source = self._layer_name(step)
            self.graph.lines[source] = step.line
            y = emit_product(self.graph, step, emitted, source, self._why_real(x))
            if emitted.tie and source not in self.graph.reasons:
                why = "activation is 1.58-bit, because sign(0) = 0; (x >= 0) makes it 1-bit"
                self.graph.reasons[source] = why
            return Emitted(y, layout=layout)

        return Rule([(x, layout)], emit)

    def _layer_name(self, step: Step) -> str:
        """The module's path, made unique where a module runs several convolutions of its own."""
        base = step.path or shown(step.name)
        self.layers[base] = n = self.layers.get(base, 0) + 1
        return base if n == 1 else f"{base}#{n}"

    def _why_real(self, activation: Traced) -> str:
        """Why the input of a layer is not made of bits or trits."""
        traced, named, mixed = activation, False, False
        reason = ""
        while traced.step is not None:
            if traced in self.near_misses:
                return self.near_misses[traced]
            if traced in self.staircases:
                return reason if mixed else self.staircases[traced]
            step = traced.step
            if not named and step.name not in _SILENT:
                place = f" ({step.path})" if step.path else ""
                reason = f"activation: '{shown(step.name)}'{place} before this layer does not saturate to levels"
                named = True
            if step.name not in _PASSING or len(step.inputs) != 1:
                return (
                    reason
                    or f"activation: '{shown(step.name)}' before this layer joins tensors that are not all levels"
                )
            mixed |= step.name in REDUCTIONS  # sums of levels have more
            traced = step.inputs[0]
        return FIRST_LAYER


def _wraps(traced: Traced) -> bool:
    """Whether arithmetic in the tensor's type is not that of numbers: True + True is True, bytes overflow."""
    assert traced.step is not None
    if traced.dtype is torch.bool:
        return traced.step.name != "mul"
    return traced.dtype in (torch.uint8, torch.int8, torch.int16)


def _lies_otherwise(x: Traced, layout: Layout | None) -> bool:
    """Whether a layer has made ``x`` with another axis as its channel: two transposes cost more than a constant map."""
    while x.step is not None and is_elementwise(x.step) and x.step.inputs and x.step.inputs[0].shape == x.shape:
        x = x.step.inputs[0]
    rank, made = len(x.shape), layout
    if x.step is None or x.step.name in CONVOLUTIONS | BATCH_NORMS | MAX_POOLS:
        made = Layout.FIRST
    elif x.step.name in LINEARS:
        made = Layout.LAST
    return layout is not None and made is not None and made.axis(rank) != layout.axis(rank)


def _constant_factor(step: Step) -> bool:
    return not all(isinstance(factor, Traced) for factor in step.inputs_of_product)


def _of_itself(step: Step) -> bool:
    return isinstance(step.argument("self"), Traced) and step.argument("self") is step.argument("other")
