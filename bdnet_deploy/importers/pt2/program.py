"""The nodes of an exported program, and the module that runs them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdnet_deploy.errors import BdnetError, ModelFileError, UnsupportedError
from bdnet_deploy.importers.program import fixed_shape, source_line, text
from bdnet_deploy.importers.pt2.archive import TYPES, Archive, open_archive
from bdnet_deploy.importers.pt2.operators import ATEN, CHECKS, PYTHON
from bdnet_deploy.importers.torch.interpreter import Imported, Interpreter, Place

_DAMAGE = (
    AttributeError, IndexError, KeyError, OverflowError, RecursionError, StopIteration, TypeError, ValueError,
)  # fmt: skip
_GRAD_MODE = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_MAX_NODES = 100_000
_MAX_DEPTH = 8


def read_file(path: Path, input_shape: Sequence[int] | None = None) -> Imported:
    """See :func:`bdnet_deploy.importers.pt2.read`."""
    archive = open_archive(path)
    try:
        module = Pt2Module(archive)
        shape, notes = _input_shape(archive.program, module.input_name, input_shape)
    except _DAMAGE as error:
        raise _damaged(f"{type(error).__name__}: {text(error)}", str(path)) from error
    except (ModelFileError, UnsupportedError) as error:
        error.where = f"{path}: {error.where}" if error.where else str(path)
        raise
    return Imported(module, shape, notes)


def _damaged(why: str, where: str) -> ModelFileError:
    return ModelFileError("the exported program is damaged", where=where, why=why, fix="export the model again")


def _input_shape(program: dict[str, Any], name: str, wanted: Sequence[int] | None) -> tuple[tuple[int, ...], list[str]]:
    meta = program["graph_module"]["graph"]["tensor_values"][name]
    if TYPES.get(meta["dtype"]) not in ("float16", "bfloat16", "float32", "float64"):
        raise UnsupportedError(f"the input '{text(name)}' is not of a float type", fix="export with a float input")
    sizes = [size.get("as_int") for size in meta["sizes"]]
    if any(type(size) not in (int, type(None)) for size in sizes):
        raise ValueError("the sizes of its input are no numbers")
    axes = [str(s) if s is not None else text(d["as_expr"]["expr_str"], 20) for s, d in zip(sizes, meta["sizes"])]
    return fixed_shape(text(name), sizes, "x".join(axes), wanted)


class Pt2Module(Interpreter):
    """A program of one tensor argument.

    Raises:
        UnsupportedError: it calls an operator that is not on the list, or takes several inputs.
    """

    def __init__(self, archive: Archive) -> None:
        super().__init__()
        module = archive.program["graph_module"]
        self._graph: dict[str, Any] = module["graph"]
        self._tensors = archive.tensors
        self._bindings: dict[str, str] = {}  # name in the program -> name of the tensor
        inputs: list[str] = []
        for spec in module["signature"]["input_specs"]:
            ((kind, content),) = spec.items()
            if kind == "user_input" and "as_tensor" in content["arg"]:
                inputs.append(content["arg"]["as_tensor"]["name"])
            elif kind in ("parameter", "buffer", "tensor_constant"):
                name = content[f"{kind}_name"]
                if name not in self._tensors:
                    raise ModelFileError(f"the weights '{text(name)}' are missing", fix="export the model again")
                self._bindings[content["arg"]["name"]] = name
            elif kind not in ("user_input", "constant_input", "token"):
                raise UnsupportedError(f"an input is a {text(kind)}", fix="export a model of tensors alone")
        if len(inputs) != 1:
            raise UnsupportedError("models with several inputs cannot be imported yet" if inputs else "it has no input",
                                   why=f"the file has {len(inputs)} inputs: {', '.join(map(text, inputs[:6]))}",
                                   fix="export with constants in place of all but one of them")  # fmt: skip
        self.input_name = inputs[0]
        # Buffers that a training-mode layer would update come before what the model returns.
        kinds = [next(iter(spec)) for spec in module["signature"]["output_specs"]]
        self._returned = [i for i, kind in enumerate(kinds) if kind == "user_output"]
        self._nodes = 0
        self._writes = False
        self._check(self._graph, 0)

    def _check(self, graph: dict[str, Any], depth: int) -> None:
        """Refuse what may not be called, before anything runs."""
        for node in graph["nodes"]:
            self._nodes += 1
            if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
                raise ModelFileError("the file is out of all proportion", why="too many nodes, or too deep")
            find(node)
            self._writes |= node["target"].split(".")[-2].endswith("_") if node["target"].count(".") > 1 else False
            for argument in node["inputs"]:
                if "as_graph" in argument["arg"]:
                    self._check(argument["arg"]["as_graph"]["graph"], depth + 1)

    def constants(self) -> Iterable[Tensor]:
        return self._tensors.values()

    def run(self, x: Tensor) -> Any:
        self.place = Place()
        values: dict[str, Any] = {name: self._tensors[tensor] for name, tensor in self._bindings.items()}
        if self._writes:
            values = {name: tensor.clone() for name, tensor in values.items()}
        values[self.input_name] = x
        try:
            results = self._run(self._graph, values)
            outputs = tuple(results[i] for i in self._returned)
        except BdnetError:
            raise
        except _DAMAGE as error:
            raise _damaged(f"{type(error).__name__}: {text(error)}", str(self.place)) from error
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, graph: dict[str, Any], values: dict[str, Any]) -> list[Any]:
        for node in graph["nodes"]:
            self.place = place_of(node)
            arguments = {a["name"]: _value(a["arg"], values) for a in node["inputs"]}
            if node["target"] == _GRAD_MODE:
                result: Any = self._block(node, values)
            else:
                result = _call(node, arguments, self.place)
            _store(node["outputs"], result, values)
        return [_value(output, values) for output in graph["outputs"]]

    def _block(self, node: dict[str, Any], values: dict[str, Any]) -> list[Any]:
        """A part of the program that ran without gradients, which means nothing here."""
        block = next(a["arg"]["as_graph"]["graph"] for a in node["inputs"] if "as_graph" in a["arg"])
        given = [_value(a["arg"], values) for a in node["inputs"] if "as_tensor" in a["arg"]]
        inner = {formal["as_tensor"]["name"]: value for formal, value in zip(block["inputs"], given, strict=True)}
        return self._run(block, inner)


def place_of(node: dict[str, Any]) -> Place:
    """Module path, node and source line."""
    outputs = node.get("outputs") or [{}]
    name = text(node.get("name") or outputs[0].get("as_tensor", {}).get("name") or "")
    target = text(node["target"].removeprefix("torch.ops."))
    metadata = node.get("metadata") or {}
    stack = text(metadata.get("nn_module_stack", ""), 100_000).split(";")[-1].split(",")
    path = re.sub(r"@\d+", "", text(stack[1])) if len(stack) > 2 else ""
    source = source_line(text(metadata.get("stack_trace", ""), 100_000))
    return Place(path or name, f"{target} '{name}', {source}" if source else f"{target} '{name}'")


def find(node: dict[str, Any]) -> Callable[..., Any]:
    """What a node calls.

    Raises:
        UnsupportedError: it is not on the list.
    """
    target = node["target"]
    if target in PYTHON:
        return PYTHON[target]
    if target == _GRAD_MODE:
        return torch.ops.higher_order.wrap_with_set_grad_enabled
    match = re.fullmatch(r"torch\.ops\.aten\.([a-z0-9_]+)\.([A-Za-z0-9_]+)", target)
    if match:
        name = match[1] if match[1].startswith("__") else match[1].removesuffix("_")
        if name in CHECKS:
            return lambda **_: None
        if name == "sym_size" or name in ATEN or match[1] in ATEN:
            packet = getattr(torch.ops.aten, match[1], None)
            if packet is not None and match[2] in packet.overloads():
                return getattr(packet, match[2])
    shown = target.removeprefix("torch.ops.")
    control = shown.startswith("higher_order.")
    raise UnsupportedError(
        f"the operator '{text(shown)}' is not supported",
        where=str(place_of(node)),
        why="control flow that depends on the data" if control else "it is not among the tensor functions that are run",
        fix="write the choice with torch.where" if control else "replace it by standard tensor operators",
    )


def _call(node: dict[str, Any], arguments: dict[str, Any], place: Place) -> Any:
    function = find(node)
    try:
        return function(*arguments.values()) if node["target"] in PYTHON else function(**arguments)
    except BdnetError:
        raise
    except Exception as error:  # whatever PyTorch raises for arguments that do not fit
        lines = str(error).strip().splitlines()
        why = text(lines[0], 300) if lines else type(error).__name__
        raise ModelFileError("a node of the program cannot be run", where=str(place), why=why,
                             fix="export the model again; check --input") from error  # fmt: skip


def _value(argument: dict[str, Any], values: dict[str, Any]) -> Any:
    """An argument as PyTorch takes it. All floats are float32, all integers int64, everything is on the CPU."""
    ((kind, content),) = argument.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_sym_int", "as_sym_bool", "as_sym_float", "as_optional_tensor"):
        return _named(content, values)
    if kind in ("as_tensors", "as_sym_ints", "as_optional_tensors"):
        return [_named(item, values) for item in content]
    if kind == "as_scalar_type":
        return _dtype(content)
    if kind == "as_device":
        return torch.device("cpu")
    if kind == "as_layout":
        return torch.strided
    if kind == "as_memory_format":
        return _MEMORY_FORMATS[content]
    if kind in ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string"):
        return float(content) if kind == "as_float" else content
    if kind == "as_graph":
        return None
    raise UnsupportedError(f"a node takes an argument of kind {text(kind)}", fix="export a model of tensors alone")


def _named(content: dict[str, Any], values: dict[str, Any]) -> Any:
    if "name" in content:
        return values[content["name"]]
    ((kind, inner),) = content.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return values[inner["name"]]
    return values[inner] if kind == "as_name" else inner


def _dtype(number: int) -> torch.dtype:
    name = TYPES[number]
    if "float" in name:
        return torch.float32
    return torch.bool if name == "bool" else torch.int64


def _store(outputs: list[dict[str, Any]], result: Any, values: dict[str, Any]) -> None:
    if len(outputs) == 1 and "as_tensors" in outputs[0]:
        names = [item["name"] for item in outputs[0]["as_tensors"]]
    else:
        names = [_output_name(output) for output in outputs]
        result = result if isinstance(result, list | tuple) else [result]
    values.update(zip(names, result))


def _output_name(output: dict[str, Any]) -> str:
    ((_, content),) = output.items()
    return str(content.get("name", content.get("as_name", ""))) if isinstance(content, dict) else ""
