"""From the outputs of a recorded forward pass back to its input: each tensor that matters becomes graph operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bdnet_deploy.errors import UnsupportedError, UsageError
from bdnet_deploy.graph import DType, Graph, GraphError
from bdnet_deploy.importers.torch.aten import (
    BATCH_NORMS,
    CONSTANT_AFFINE,
    CONVOLUTIONS,
    ELEMENTWISE,
    IDENTITY,
    LINEARS,
    MOVES,
    shown,
)
from bdnet_deploy.importers.torch.constants import constant_affine
from bdnet_deploy.importers.torch.emitted import Emitted, real
from bdnet_deploy.importers.torch.layers import (
    FIRST_LAYER,
    average_pool,
    batch_norm,
    emit_product,
    product_input,
    refuse,
)
from bdnet_deploy.importers.torch.moves import Move, find_move
from bdnet_deploy.importers.torch.piecewise import find_two_lines
from bdnet_deploy.importers.torch.quantizer import Quantizer, find_quantizer
from bdnet_deploy.importers.torch.recorder import record
from bdnet_deploy.importers.torch.rules import (
    Rule,
    affine_rule,
    lines_rule,
    move_rule,
    pad_rule,
    quantize_rule,
    sum_rule,
)
from bdnet_deploy.importers.torch.trace import Step, Trace, Traced
from bdnet_deploy.importers.torch.training import explain_unfinished

_DEFAULT_ADVICE = "replace it by a supported operator, or leave it out of the model to deploy; see docs/importing.md"
_ADVICE = {
    "cat": "only a tensor joined with itself (a repeat of all channels) is possible",
    "hardtanh": "use ReLU, PReLU or RPReLU; directly before a sign a clamp is understood",
    "log_softmax": "return the logits: softmax does not change the order of the classes",
    "max_pool2d": "use average pooling or a stride",
    "mul": "only constants can multiply an activation: remove gates such as squeeze-and-excitation",
    "softmax": "return the logits: softmax does not change the order of the classes",
}

# Between the input and the first layer there can be normalisation and reshaping; of these, some are not worth naming.
_PASSING = IDENTITY | MOVES | CONSTANT_AFFINE | BATCH_NORMS | {"constant_pad_nd"}
_SILENT = (IDENTITY | MOVES | {"constant_pad_nd"}) - {"mean", "sum", "avg_pool2d", "_adaptive_avg_pool2d"}


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
    x = _sample(module, tuple(int(n) for n in input_shape), sample)
    _check_parameters(module)
    with torch.random.fork_rng(devices=[]):
        trace = record(module, x)
    try:
        graph = _Builder(trace, name).build()
    except GraphError as error:
        raise UnsupportedError("the model cannot be carried over", why=str(error), fix=_DEFAULT_ADVICE) from error
    explain_unfinished(graph, module)
    return graph


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
    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self.graph = Graph(name)
        self.done: dict[Traced, Emitted] = {}
        self.rules: dict[Traced, Rule] = {}
        self.layers: dict[str, int] = {}  # source name -> how many convolutions bear it
        self.near_misses: dict[Traced, str] = {}  # functions that are nearly quantizers -> what is missing

    def build(self) -> Graph:
        shape = self.trace.input.shape
        nhwc = (1, *shape[2:], shape[1])
        self.done[self.trace.input] = Emitted(self.graph.input("input", nhwc, DType.F64))
        for output in self.trace.outputs:
            if len(output.shape) not in (2, 4) or output.shape[0] != 1:
                raise UnsupportedError(
                    f"an output has shape {tuple(output.shape)}",
                    where=output.step.where if output.step else None,
                    why="outputs are vectors (1, C) or maps (1, C, H, W)",
                    fix="reshape it, or leave it out of what the model returns",
                )
            self._make(output)
            place = output.step.where if output.step else "the output"
            self.graph.outputs.append(real(self.graph, self.done[output], place))
        return self.graph

    def _make(self, wanted: Traced) -> None:
        """Emit all that ``wanted`` is made from, then it. A stack instead of recursion: networks are deep."""
        stack = [wanted]
        while stack:
            traced = stack[-1]
            if traced in self.done:
                stack.pop()
                continue
            if traced not in self.rules:
                self.rules[traced] = self._match(traced)
            rule = self.rules[traced]
            missing = [s for s in rule.sources if s not in self.done]
            if missing:
                stack.extend(sorted(missing, key=lambda s: -s.index))
            else:
                self.done[traced] = rule.emit(*(self.done[s] for s in rule.sources))
                stack.pop()

    def _match(self, traced: Traced) -> Rule:
        step = traced.step
        assert step is not None
        if step.name in CONVOLUTIONS or step.name in LINEARS:
            return self._product(step)
        if step.name in BATCH_NORMS and traced is step.outputs[0]:
            mul, add = batch_norm(step)
            return affine_rule(self.graph, step, step.inputs[0], mul, add)
        if step.name in ("avg_pool2d", "_adaptive_avg_pool2d") and len(traced.shape) == 4:
            x = step.inputs[0]
            return move_rule(self.graph, step, Move(x, average_pool(step, x.shape)))
        if step.name == "constant_pad_nd":
            return pad_rule(step)
        if step.name in ELEMENTWISE:
            return self._elementwise(traced, step)
        if step.name in MOVES:
            return move_rule(self.graph, step, find_move(traced))
        raise self._unsupported(step, "the graph has no such operator")

    def _unsupported(self, step: Step, why: str) -> UnsupportedError:
        return refuse(step, why, _ADVICE.get(shown(step.name), _DEFAULT_ADVICE))

    def _elementwise(self, traced: Traced, step: Step) -> Rule:
        if step.name in IDENTITY and len(step.inputs) == 1 and not step.in_place:
            x = step.inputs[0]
            if x.dtype.is_floating_point and traced.dtype.is_floating_point:
                return Rule([x], lambda emitted: emitted)
        quantizer = find_quantizer(traced)
        if isinstance(quantizer, Quantizer):
            return quantize_rule(self.graph, step, quantizer)
        if quantizer is not None:
            self.near_misses[traced] = quantizer
        if step.name in CONSTANT_AFFINE and len(step.inputs) == 1:
            factors = constant_affine(step)
            if factors is not None:
                suffix = ".scale" if np.any(factors[0] != 1.0) else ".shift"
                return affine_rule(self.graph, step, step.inputs[0], *factors, suffix)
        lines = find_two_lines(traced)
        if lines is not None:
            return lines_rule(self.graph, step, lines)
        if step.name in ("add", "sub", "rsub") and len(step.inputs) == 2:
            return sum_rule(self.graph, step)
        if step.name in MOVES:
            return move_rule(self.graph, step, find_move(traced))
        raise self._unsupported(step, quantizer or "it is neither a quantizer, nor affine, nor of two slopes")

    # -- convolution and linear layers --------------------------------------------------------------------------------

    def _product(self, step: Step) -> Rule:
        x = product_input(step)

        def emit(emitted: Emitted) -> Emitted:
            source = self._layer_name(step)
            self.graph.lines[source] = step.line
            y = emit_product(self.graph, step, emitted, source, self._why_real(x))
            if emitted.tie and source not in self.graph.reasons:
                why = "activation is 1.58-bit, because sign(0) = 0; (x >= 0) makes it 1-bit"
                self.graph.reasons[source] = why
            return Emitted(y)

        return Rule([x], emit)

    def _layer_name(self, step: Step) -> str:
        """The module's path, made unique where a module runs several convolutions of its own."""
        base = step.path or shown(step.name)
        self.layers[base] = n = self.layers.get(base, 0) + 1
        return base if n == 1 else f"{base}#{n}"

    def _why_real(self, activation: Traced) -> str:
        """Why the input of a layer is not made of bits or trits."""
        traced, named = activation, False
        reason = ""
        while traced.step is not None:
            if traced in self.near_misses:
                return self.near_misses[traced]
            step = traced.step
            if not named and step.name not in _SILENT:
                place = f" ({step.path})" if step.path else ""
                reason = f"activation: '{shown(step.name)}'{place} before this layer does not saturate to levels"
                named = True
            if step.name not in _PASSING or len(step.inputs) != 1:
                return reason
            traced = step.inputs[0]
        return FIRST_LAYER
