"""What the rules of lowering share: tensors, and the fusion of a step with what follows it.

One rule per operator lies in ``plan/lower_rules/``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from bdnet_deploy.errors import UnsupportedError
from bdnet_deploy.graph import (
    AddMap,
    Affine,
    Array,
    AvgPool,
    BoxSum,
    Clamp,
    Conv2d,
    DType,
    Graph,
    GroupMean,
    LayerNorm,
    Linear,
    Matmul,
    MaxPool,
    Mul,
    MulMap,
    Node,
    Op,
    Repeat,
    Sign,
    Ternarize,
    TwoSlope,
    Value,
)
from bdnet_deploy.plan.limits import check_step
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
    DType.UBIT: "z",
}

#: From a lowering and a node to the node's steps.
Rule = Callable[["Lowering", Node], None]
_R = TypeVar("_R", bound=Rule)
RULES: dict[type[Op], Rule] = {}
#: Operators whose kernels make accumulators for a fused epilogue; those of two operands leave no room for a residual.
PRODUCTS: set[type[Op]] = {AddMap, Conv2d, LayerNorm, Linear, Matmul, MulMap}
#: Operators between a residual and its source that may run ahead of their turn, so that the residual can be fused.
SHORTCUTS: set[type[Op]] = {AddMap, AvgPool, BoxSum, Clamp, GroupMean, MaxPool, Mul, MulMap, Repeat}


def rule(*ops: type[Op]) -> Callable[[_R], _R]:
    """Decorator: the function lowers these operators."""

    def enter(function: _R) -> _R:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return enter


class Lowering:
    """A graph on its way to steps. ``done``: nodes that a step already computes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = graph.users()
        self.plan = Plan(graph, [], [])
        self.tensors: dict[Value, PlanTensor] = {}
        self.done: set[Node] = set()

    def run(self) -> Plan:
        for i, value in enumerate(self.graph.inputs):
            self.tensor(value, place="input", index=i)
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

    def tensor(self, value: Value, *, place: str = "arena", index: int = 0) -> PlanTensor:
        height, width, channels = hwc(value.type.shape)
        tensor = PlanTensor([value], height, width, channels, value.type.dtype, place, index)
        self.plan.tensors.append(tensor)
        self.tensors[value] = tensor
        return tensor

    def sole_user(self, value: Value) -> Node | None:
        users = self.users.get(value, [])
        return users[0] if len(users) == 1 and value not in self.graph.outputs else None

    def unsupported(self, node: Node, what: str) -> UnsupportedError:
        return UnsupportedError(what, where=node.source or node.name)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _lower(self, node: Node) -> None:
        found = RULES.get(type(node.op))
        if found is None:
            raise self.unsupported(node, f"operator {node.op.name} has no kernel")
        found(self, node)

    def absorbed(self, node: Node) -> bool:
        """Whether every reader is an epilogue that repeats the channels itself, of its accumulators or its residual."""
        readers = self.users.get(node.output, [])
        return node.output not in self.graph.outputs and all(
            self.residual(r) == node.output or self._accumulators(r) is node.output for r in readers
        )

    def _accumulators(self, node: Node) -> Value | None:
        """What a per-channel operator takes as its accumulators."""
        if not isinstance(node.op, Affine | TwoSlope | Sign | Ternarize):
            return None
        return node.inputs[self.acc_term(node) if isinstance(node.op, Affine) else 0]

    def unrepeated(self, value: Value) -> tuple[Value, int]:
        """The tensor behind a repeat that has none of its own, and how many more times it is read."""
        node = value.node
        if value not in self.tensors and node is not None and isinstance(node.op, Repeat) and self.absorbed(node):
            return node.inputs[0], node.op.times - 1
        return value, 0

    def residual(self, node: Node) -> Value | None:
        """The residual of a two-term affine: the term that is not a convolution's accumulators."""
        if not isinstance(node.op, Affine) or node.op.terms != 2:
            return None
        return node.inputs[1 - self.acc_term(node)]

    def acc_term(self, node: Node) -> int:
        """Which term of an affine comes from a convolution (repeated, perhaps) that only it reads; 0 if none.

        Never a vector beside a map.
        """
        assert isinstance(node.op, Affine)
        for i in range(node.op.terms):
            if node.inputs[i].type.shape != node.output.type.shape:
                continue
            reader, producer = node, node.inputs[i].node
            if producer and isinstance(producer.op, Repeat) and self.sole_user(node.inputs[i]) is node:
                reader, producer = producer, producer.inputs[0].node
            if producer and type(producer.op) in PRODUCTS and self.sole_user(producer.output) is reader:
                return i
        return 0

    def simple(self, node: Node, kernel: str, **fields: Any) -> PlanStep:
        """A step of one kernel that writes the output itself. ``fields``: of the :class:`PlanStep`."""
        dtype = node.output.type.dtype
        step = PlanStep(
            kernel=kernel,
            epilogue_kernel=None,
            nodes=[node],
            inputs=[self.tensors[v] for v in node.inputs if not v.is_constant],
            trunk=self.tensor(node.output),
            packed=None,
            out_shape=hwc(node.output.type.shape),
            acc_dtype=DType.I8 if dtype.is_packed else dtype,  # the format has no packed accumulators
            **fields,
        )
        self.done.add(node)
        self.plan.steps.append(step)
        return step

    def fused(self, node: Node, kernel: str, **fields: Any) -> None:
        """A step whose kernel makes accumulators, and the epilogue that follows. ``fields``: of the :class:`PlanStep`."""
        step = PlanStep(
            kernel=kernel,
            epilogue_kernel=None,
            nodes=[node],
            inputs=[self.tensors[v] for v in node.inputs if not v.is_constant],
            trunk=None,
            packed=None,
            out_shape=hwc(node.output.type.shape),
            **fields,
        )
        self.done.add(node)
        self.fuse(step, node.output)

    # -- fusion -------------------------------------------------------------------------------------------------------

    def fuse(self, step: PlanStep, value: Value, head: Node | None = None, repeats: int = 0) -> None:
        """Extend ``step``, whose accumulators are ``value``, by the repeat, affine, slopes and packing that follow.

        ``head``: the node to begin with, when ``value`` may have other readers too; ``repeats``: it reads the
        accumulators' channels so many more times.
        """
        epilogue = Epilogue(value.type.dtype, repeats=repeats)
        nxt = head or self.sole_user(value)
        repeat = nxt if nxt and isinstance(nxt.op, Repeat) and self.absorbed(nxt) else None
        if repeat:
            nxt = self.sole_user(repeat.output)
        accumulators = repeat.output if repeat else value
        if nxt and isinstance(nxt.op, Affine) and (head or nxt.inputs[self.acc_term(nxt)] is accumulators):
            if self._affine(step, epilogue, nxt, self.residual(nxt)):
                self._take_repeat(step, epilogue, repeat)
                value, head = self._take(step, nxt), None
                nxt = self.sole_user(value)
            else:
                nxt = None
        elif nxt and repeat and isinstance(nxt.op, Sign | Ternarize):
            self._take_repeat(step, epilogue, repeat)
            value = repeat.output
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
            step.packed = self.tensor(self._take(step, chosen))
        only_packed = all(n is chosen for n in readers) and value not in self.graph.outputs
        if value not in self.tensors and not only_packed and not self.unrepeated(value)[1]:
            step.trunk = self.tensor(value)
        if chosen is not None or epilogue.mul is not None or epilogue.positive is not None:
            computes = epilogue.mul is not None or epilogue.positive is not None or epilogue.dtype is DType.F32
            step.epilogue_kernel = f"bd_epilogue_{epilogue.dtype.value if computes else 'i32'}"
            step.epilogue = epilogue
        elif step.trunk is not None:  # the kernel writes its accumulators itself
            step.trunk.dtype = step.acc_dtype
        self.plan.steps.append(step)

    def _shortcut(self, value: Value) -> bool:
        """Whether a residual is there, or could be made now, ahead of its turn, from what is there."""
        node = value.node
        if value in self.tensors:
            return True
        if (
            node is None
            or type(node.op) not in SHORTCUTS
            or not all(v.is_constant or self._shortcut(v) for v in node.inputs)
        ):
            return False
        RULES[type(node.op)](self, node)
        return True

    def _take_repeat(self, step: PlanStep, epilogue: Epilogue, repeat: Node | None) -> None:
        if repeat is not None and isinstance(repeat.op, Repeat):
            epilogue.repeats = repeat.op.times - 1
            self._take(step, repeat)

    def _take(self, step: PlanStep, node: Node) -> Value:
        step.nodes.append(node)
        self.done.add(node)
        return node.output

    def _affine(self, step: PlanStep, epilogue: Epilogue, node: Node, residual: Value | None) -> bool:
        """Put the affine into the epilogue; False if its residual is not computed yet, or the kernel has two operands."""
        op = cast(Affine, node.op)
        parameters = [cast(Array, v.data) for v in node.inputs[op.terms :]]
        term = self.acc_term(node)
        if residual is not None:
            repeat = residual.node if residual not in self.tensors else None
            base = repeat.inputs[0] if repeat and isinstance(repeat.op, Repeat) else residual
            if len(step.inputs) > 1 or not self._shortcut(base):
                return False
            step.inputs.append(self.tensors[base])
            epilogue.residual_mul = parameters[1 - term]
            epilogue.residual_channels = base.type.channels
            epilogue.residual_shift = op.shifts[1 - term] if op.shifts else 0
        epilogue.mul, epilogue.add = parameters[term], parameters[-1]
        epilogue.shift = op.shifts[term] if op.shifts else 0
        return True
