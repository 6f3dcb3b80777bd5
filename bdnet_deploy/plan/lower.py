"""From a graph with numerics to a plan: fuse each convolution with what follows it, choose kernels, pack weights."""

from __future__ import annotations

from typing import cast

import numpy as np

from bdnet_deploy.bitplanes import pack
from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import (
    Affine,
    Array,
    AvgPool,
    Conv2d,
    DType,
    GlobalAvgPool,
    Graph,
    GroupMean,
    Linear,
    Node,
    Repeat,
    Reshape,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)
from bdnet_deploy.plan.limits import check_step
from bdnet_deploy.plan.memory import choose_layout
from bdnet_deploy.plan.plan import Epilogue, Plan, PlanStep, PlanTensor, hwc

#: Letters of dtypes in kernel names.
LETTER = {
    DType.F32: "f",
    DType.U8: "u",
    DType.I8: "q",
    DType.I16: "h",
    DType.I32: "i",
    DType.BIT: "b",
    DType.TRIT: "t",
}
_CONV_PAIRS = {"ff", "bf", "tf", "uq", "qq", "hq", "bq", "tq"}


def make_plan(graph: Graph, *, ram: int | None = None, cut: int | None = None, push_rows: bool = False) -> Plan:
    """Lower a graph whose numerics are chosen.

    Args:
        graph: with its numerics.
        ram, cut, push_rows: see :func:`~bdnet_deploy.plan.memory.choose_layout`.

    Raises:
        DoesNotFitError: no layout fits into ``ram``.
        UnsupportedError: for a combination of dtypes that no kernel takes; names the layer.
    """
    plan = _Lowering(graph).run()
    choose_layout(plan, ram=ram, cut=cut, push_rows=push_rows)
    return plan


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = graph.users()
        self.plan = Plan(graph, [], [])
        self.tensors: dict[Value, PlanTensor] = {}
        self.done: set[Node] = set()

    def run(self) -> Plan:
        for i, value in enumerate(self.graph.inputs):
            self._tensor(value, place="input", index=i)
        for node in self.graph.nodes:
            if node not in self.done:
                self._lower(node)
        for i, value in enumerate(self.graph.outputs):
            tensor = self.tensors[value]
            if tensor.place != "arena":
                raise UnsupportedError(f"output '{value.name}' is also an input or another output of the model")
            if tensor.dtype.is_packed:
                raise UnsupportedError(f"output '{value.name}' is packed {tensor.dtype.value}s, not numbers")
            tensor.place, tensor.offset = "output", i
        for step in self.plan.steps:
            check_step(step)
        return self.plan

    # -- tensors ------------------------------------------------------------------------------------------------------

    def _tensor(self, value: Value, *, place: str = "arena", index: int = 0) -> PlanTensor:
        height, width, channels = hwc(value.type.shape)
        tensor = PlanTensor([value], height, width, channels, value.type.dtype, place, index)
        self.plan.tensors.append(tensor)
        self.tensors[value] = tensor
        return tensor

    def _sole_user(self, value: Value) -> Node | None:
        users = self.users.get(value, [])
        return users[0] if len(users) == 1 and value not in self.graph.outputs else None

    def _unsupported(self, node: Node, what: str) -> UnsupportedError:
        return UnsupportedError(what, where=node.source or node.name)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _lower(self, node: Node) -> None:
        op = node.op
        if isinstance(op, Reshape):
            tensor = self.tensors[node.inputs[0]]
            tensor.values.append(node.output)
            self.tensors[node.output] = tensor
            if hwc(node.output.type.shape)[2] != tensor.channels:
                raise self._unsupported(node, "a reshape that moves channels has no kernel")
            self.done.add(node)
        elif isinstance(op, Repeat) and self._absorbed(node):
            self.done.add(node)
        elif isinstance(op, Conv2d | Linear):
            self._product(node)
        elif isinstance(op, Affine | TwoSlope | Sign | Ternarize):
            self._pointwise(node)
        elif isinstance(op, AvgPool | GlobalAvgPool | GroupMean | Repeat):
            self._simple(node)
        else:
            raise self._unsupported(node, f"operator {op.name} has no kernel")

    def _absorbed(self, node: Node) -> bool:
        """Whether every reader is an affine map whose residual term this repeat is."""
        readers = self.users.get(node.output, [])
        return node.output not in self.graph.outputs and all(self._residual(r) == node.output for r in readers)

    def _residual(self, node: Node) -> Value | None:
        """The residual of a two-term affine: the term that is not a convolution's accumulators."""
        if not isinstance(node.op, Affine) or node.op.terms != 2:
            return None
        return node.inputs[1 - self._acc_term(node)]

    def _acc_term(self, node: Node) -> int:
        """Which term of an affine comes from a convolution that only it reads (0 if none)."""
        assert isinstance(node.op, Affine)
        for i in range(node.op.terms):
            producer = node.inputs[i].node
            if producer and isinstance(producer.op, Repeat) and self._sole_user(producer.inputs[0]) is producer:
                producer = producer.inputs[0].node  # replicas of a convolution's accumulators
            if producer and isinstance(producer.op, Conv2d | Linear) and self._sole_user(node.inputs[i]) is node:
                return i
        return 0

    def _product(self, node: Node) -> None:
        x, w = node.inputs
        conv = node.op if isinstance(node.op, Conv2d) else Conv2d()
        data = cast(Array, w.data)
        weights = data if data.ndim == 4 else data.reshape(data.shape[0], 1, 1, data.shape[1])
        channels = x.type.channels
        pair = LETTER[x.type.dtype] + LETTER[w.type.dtype]
        packed = w.type.dtype.is_packed
        taps = int(np.prod(weights.shape[1:]))
        depthwise = packed and conv.groups == channels == weights.shape[0] and conv.groups > 1 and taps <= 127
        if packed and x.type.dtype.is_packed:
            acc = DType.I8 if depthwise else DType.I16 if taps <= 32767 else DType.I32
            kernel = f"bd_{'dw' if depthwise else 'conv'}_{pair}_{acc.value}"
            if depthwise:  # [kh][kw][plane][words(C)]
                by_tap = weights[..., 0].transpose(1, 2, 0)
                blob = pack(by_tap, planes=w.type.dtype.planes)
            else:  # [O][kh][kw][plane][words(C / groups)]
                blob = pack(weights, planes=w.type.dtype.planes)
        elif x.type.dtype is DType.F32 or pair in _CONV_PAIRS:
            if packed:  # real inputs: the weights as they are, not as bits
                pair, packed, weights = "ff", False, weights.astype(np.float32)
            acc = node.output.type.dtype
            kernel = f"bd_conv_{pair}_{acc.value}"
            blob = weights
        else:
            raise self._unsupported(node, f"no kernel for a {x.type.dtype.value} x {w.type.dtype.value} convolution")
        step = PlanStep(
            kernel=kernel,
            epilogue_kernel=None,
            nodes=[node],
            inputs=[self.tensors[x]],
            trunk=None,
            packed=None,
            out_shape=hwc(node.output.type.shape),
            acc_dtype=acc,
            groups=conv.groups,
            window=(weights.shape[1], weights.shape[2]),
            strides=conv.strides,
            dilation=conv.dilation,
            pad_top_left=(conv.padding[0], conv.padding[2]),
            pad_value=conv.pad_value,
            zero_point=int(x.type.quant.zero_point) if x.type.quant else 0,
            weights=np.ascontiguousarray(blob),
            weight_planes=w.type.dtype.planes if packed else 0,
        )
        self.done.add(node)
        self._fuse(step, node.output)

    def _pointwise(self, node: Node) -> None:
        """An affine, two-slope or sign that no convolution could take along: an epilogue of its own."""
        first = self._acc_term(node) if isinstance(node.op, Affine) else 0
        source = self.tensors[node.inputs[first]]
        step = PlanStep(
            kernel=None,
            epilogue_kernel="",
            nodes=[],
            inputs=[source],
            trunk=None,
            packed=None,
            out_shape=hwc(node.output.type.shape),
            acc_dtype=source.dtype,
        )
        self._fuse(step, node.inputs[first], head=node)

    def _simple(self, node: Node) -> None:
        x = node.inputs[0]
        # Accumulators may be stored narrower than their i32; what repeats them stores them alike.
        out = self.tensors[x].dtype if isinstance(node.op, Repeat) else node.output.type.dtype
        name = {AvgPool: "avgpool", GroupMean: "group_mean", Repeat: "repeat"}.get(type(node.op))
        kernel = f"bd_{name}_{out.value}" if name else f"bd_gap_{LETTER[x.type.dtype]}_{out.value}"
        trunk = self._tensor(node.output)
        trunk.dtype = out
        step = PlanStep(
            kernel=kernel,
            epilogue_kernel=None,
            nodes=[node],
            inputs=[self.tensors[x]],
            trunk=trunk,
            packed=None,
            out_shape=hwc(node.output.type.shape),
            acc_dtype=out,
            kind="accumulate" if isinstance(node.op, GlobalAvgPool) else "window",
        )
        if isinstance(node.op, AvgPool):
            step.window, step.strides = node.op.kernel, node.op.strides
        self.done.add(node)
        self.plan.steps.append(step)

    # -- fusion -------------------------------------------------------------------------------------------------------

    def _fuse(self, step: PlanStep, value: Value, head: Node | None = None) -> None:
        """Extend ``step``, whose accumulators are ``value``, by the affine, slopes and packing that follow.

        ``head``: the node to begin with, when ``value`` may have other readers too.
        """
        epilogue = Epilogue(value.type.dtype)
        nxt = head or self._sole_user(value)
        if nxt and isinstance(nxt.op, Affine) and (head or nxt.inputs[self._acc_term(nxt)] is value):
            residual = self._residual(nxt)
            if self._affine(step, epilogue, nxt, residual):
                value, head = self._take(step, nxt), None
                nxt = self._sole_user(value)
            else:
                nxt = None
        fits = head is not None or (epilogue.mul is not None and nxt and nxt.output.type.dtype is value.type.dtype)
        if nxt and isinstance(nxt.op, TwoSlope) and fits:  # one dtype: the affine's values saturate to it too
            constants = [v.data for v in nxt.inputs[1:]]
            epilogue.positive, epilogue.negative = constants[0], constants[1]
            epilogue.bias = constants[2] if len(constants) > 2 else None
            value, head = self._take(step, nxt), None
        readers = self.users.get(value, [])
        packers = [n for n in readers if isinstance(n.op, Sign | Ternarize) and n not in self.done]
        chosen = head if head in packers else packers[0] if packers else None
        if head is None and not step.nodes[1:] and len(readers) > 1:
            chosen = None  # bare accumulators with several readers: the kernel stores them
        epilogue.dtype = value.type.dtype
        if chosen is not None:
            thresholds = [v.data for v in chosen.inputs[1:]]
            epilogue.low = thresholds[0]
            epilogue.high = thresholds[1] if len(thresholds) > 1 else None
            step.packed = self._tensor(self._take(step, chosen))
        only_packed = all(n is chosen for n in readers) and value not in self.graph.outputs
        if value not in self.tensors and not only_packed:
            step.trunk = self._tensor(value)
        if chosen is not None or epilogue.mul is not None or epilogue.positive is not None:
            computes = epilogue.mul is not None or epilogue.positive is not None or epilogue.dtype is DType.F32
            step.epilogue_kernel = f"bd_epilogue_{epilogue.dtype.value if computes else 'i32'}"
            step.epilogue = epilogue
        elif step.trunk is not None:  # the kernel writes its accumulators itself
            step.trunk.dtype = step.acc_dtype
        self.plan.steps.append(step)

    def _shortcut(self, value: Value) -> bool:
        """Lower the pooling that makes a residual now, ahead of its turn, if its own input is there."""
        node = value.node
        if node is None or not isinstance(node.op, AvgPool | GroupMean | Repeat) or node.inputs[0] not in self.tensors:
            return False
        self._simple(node)
        return True

    def _take(self, step: PlanStep, node: Node) -> Value:
        step.nodes.append(node)
        self.done.add(node)
        return node.output

    def _affine(self, step: PlanStep, epilogue: Epilogue, node: Node, residual: Value | None) -> bool:
        """Put the affine into the epilogue; False if its residual is not computed yet."""
        op = cast(Affine, node.op)
        parameters = [cast(Array, v.data) for v in node.inputs[op.terms :]]
        term = self._acc_term(node)
        if residual is not None:
            repeat = residual.node if residual not in self.tensors else None
            base = repeat.inputs[0] if repeat and isinstance(repeat.op, Repeat) else residual
            if base not in self.tensors and not self._shortcut(base):
                return False
            step.inputs.append(self.tensors[base])
            epilogue.residual_mul = parameters[1 - term]
            epilogue.residual_channels = base.type.channels
            epilogue.residual_shift = op.shifts[1 - term] if op.shifts else 0
        epilogue.mul, epilogue.add = parameters[term], parameters[-1]
        epilogue.shift = op.shifts[term] if op.shifts else 0
        return True
