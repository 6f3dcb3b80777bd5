"""A module that runs the nodes of an ONNX file with PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bdnet_deploy.errors import BdnetError, UnsupportedError
from bdnet_deploy.importers.onnx.file import Body, File, Node, bodies, read_by
from bdnet_deploy.importers.onnx.operators import find
from bdnet_deploy.importers.onnx.rewrites import rewrite
from bdnet_deploy.importers.torch.interpreter import Interpreter, Place
from bdnet_deploy.importers.torch.recorder import is_traced

_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


class OnnxModule(Interpreter):
    """The graph of a file as a module of one float32 tensor.

    Where the file's input is NHWC and first of all transposed, the module takes NCHW (``channels_last``) and leaves that
    transposition out, and likewise where a map is transposed to NHWC as the last thing.

    Raises:
        UnsupportedError: an operator that is not known.
    """

    def __init__(self, file: File, input_name: str) -> None:
        super().__init__()
        self._body = rewrite(file.body)
        self._input = input_name
        self._ends = _ends(self._body)
        self.channels_last = _only_transposed(self._body, input_name)
        for node in self._body.nodes:
            find(node)

    def constants(self) -> Iterable[Tensor]:
        return self._body.constants.values()

    def run(self, x: Tensor) -> Any:
        self.place = Place()
        values: dict[str, Tensor] = {self._input: x}
        outputs = self._run(self._body, values)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _run(self, body: Body, values: dict[str, Tensor]) -> list[Tensor]:
        values.update(body.constants)
        left = Counter(name for node in body.nodes for name in _reads(node))
        left.update(body.outputs)
        for node in body.nodes:
            self.place = node.place
            self._node(node, values)
            for name in _reads(node):
                left[name] -= 1
                if not left[name] and body is self._body:
                    values.pop(name, None)
        return [self._output(name, values) for name in body.outputs]

    def _output(self, name: str, values: dict[str, Tensor]) -> Tensor:
        if name not in values:
            raise UnsupportedError(f"the output '{name[:200]}' is computed by no node", fix="export the model again")
        return values[name]

    def _node(self, node: Node, values: dict[str, Tensor]) -> None:
        missing = [name for name in node.inputs if name and name not in values]
        if missing:
            raise node.damaged(f"nothing computes its input '{missing[0][:200]}'")
        arguments = [values[name] if name else None for name in node.inputs]
        if self._is_end(node):
            results: Any = arguments[0]
        elif node.domain == "" and node.op == "If":
            results = self._choose(node, arguments[0], values)
        else:
            function = find(node)
            try:
                results = function(node, *arguments)
            except BdnetError:
                raise
            except Exception as error:  # whatever PyTorch raises for attributes and shapes that do not fit
                shapes = ", ".join("x".join(map(str, a.shape)) or "scalar" for a in arguments if a is not None)
                lines = str(error).strip().splitlines()
                why = f"{lines[0][:300] if lines else type(error).__name__} (inputs: {shapes})"
                raise node.damaged(why) from error
        values.update(zip(node.outputs, results if isinstance(results, list | tuple) else [results]))

    def _is_end(self, node: Node) -> bool:
        """A transposition between the file's NHWC and NCHW at an end of the network."""
        if node.op != "Transpose" or node.domain:
            return False
        perm = node.ints("perm")
        if self.channels_last and node.inputs[0] == self._input:
            return perm == _TO_NCHW
        return (
            self.channels_last
            and perm == _TO_NHWC
            and node.outputs[0] in self._ends
            and not any(node.outputs[0] in _reads(n) for n in self._body.nodes if not _is_identity(n))
        )

    def _choose(self, node: Node, condition: Tensor | None, values: dict[str, Tensor]) -> list[Tensor]:
        if condition is None or is_traced(condition):
            raise UnsupportedError(
                "control flow that depends on the data",
                where=str(node.place),
                why="the condition of 'If' is computed from the input",
                fix="write the choice with torch.where, or fix it before exporting",
            )
        branch = node.attributes.get("then_branch" if bool(condition.reshape(-1)[:1].any()) else "else_branch")
        if not isinstance(branch, Body):
            raise node.damaged("it lacks a branch")
        return self._run(branch, values)


def _reads(node: Node) -> set[str]:
    names = set(node.inputs)
    for body in bodies(node):
        names |= read_by(body)
    return names


def _only_transposed(body: Body, name: str) -> bool:
    readers = [node for node in body.nodes if name in _reads(node)]
    return (
        bool(readers)
        and name not in body.outputs
        and all(n.op == "Transpose" and not n.domain and n.attributes.get("perm") == _TO_NCHW for n in readers)
    )


def _is_identity(node: Node) -> bool:
    return not node.domain and node.op == "Identity"


def _ends(body: Body) -> set[str]:
    """The outputs, and what only gets another name on its way to one."""
    names = set(body.outputs)
    for node in reversed(body.nodes):
        if _is_identity(node) and node.outputs[0] in names:
            names.add(node.inputs[0])
    return names
