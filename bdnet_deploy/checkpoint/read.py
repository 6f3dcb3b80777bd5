"""Reading a checkpoint without PyTorch and without running code in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy.checkpoint.containers import Contents, OtherKindError, read_container
from bdnet_deploy.checkpoint.pickles import DamagedError, LazyTensor, Opaque
from bdnet_deploy.checkpoint.save import FORMAT, VERSION
from bdnet_deploy.errors import ModelFileError
from bdnet_deploy.iodesc import IODescription

# Where training scripts put the weights beside epochs and optimizers, in the order in which they are looked
# for.
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "ema",
    "ema_state_dict",
    "model_ema",
    "params",
    "weights",
)
_MAX_NESTING = 3
# Left by DataParallel, DistributedDataParallel and torch.compile.
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, as plain data.

    Attributes:
        path: the file.
        state_dict: name to array; bfloat16 as float32. A leading ``module.`` is removed from all names.
        arch, config: architecture and its options, in our own checkpoints; else None.
        io: the I/O description, where the file has one.
        found_at: where the state dict lay, e.g. ``"ema.state_dict"``; empty at the top.
        ignored: what else the file held: entries beside the tensors and classes that were not built.
    """

    path: Path
    state_dict: dict[str, npt.NDArray[Any]]
    arch: str | None = None
    config: dict[str, Any] | None = None
    io: IODescription | None = None
    found_at: str = ""
    ignored: tuple[str, ...] = ()


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read our checkpoint or anyone's state dict.

    ZIP and pre-1.6 files of ``torch.save``; the state dict may lie under ``state_dict``, ``model``, ``net``,
    ``ema``, ``model_state_dict`` and the like. Classes in the file become inert names; nothing in it is
    called.

    Raises:
        ModelFileError: no such file, damaged, not a checkpoint, or holding objects instead of tensors; with
            what to do.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelFileError("this is a folder, not a model file", where=str(path))
    try:
        with path.open("rb") as file:
            contents = read_container(file)
            return _checkpoint(path, contents)
    except FileNotFoundError as error:
        raise ModelFileError("there is no such file", where=str(path)) from error
    except OSError as error:
        raise ModelFileError("the file cannot be read", where=str(path), why=error.strerror) from error
    except DamagedError as error:
        raise ModelFileError(
            "this is not a PyTorch checkpoint, or it is damaged", where=str(path), why=str(error)
        ) from error
    except OtherKindError as error:
        raise _other_kind(path, error.kind) from error
    except ModelFileError as error:
        if error.where is None:
            error.where = str(path)
        raise


def _checkpoint(path: Path, contents: Contents) -> Checkpoint:
    root = contents.root
    if isinstance(root, dict) and root.get("format") == FORMAT:
        return _ours(path, root, contents)
    found = _find(path, root, "", set())
    if found is None:
        raise _no_state_dict(path, root)
    where, tensors = found
    beside = tuple(str(key) for key in root if not isinstance(root[key], LazyTensor)) if isinstance(root, dict) else ()
    beside = tuple(key[:80] for key in beside if key != where.split(".")[0])
    return Checkpoint(
        path, _arrays(_unprefixed(tensors), contents), found_at=where, ignored=(*beside, *contents.opaque)
    )


def _ours(path: Path, root: dict[Any, Any], contents: Contents) -> Checkpoint:
    version, arch, config, weights, io = (root.get(key) for key in ("version", "arch", "config", "state_dict", "io"))
    if not isinstance(version, int) or version < 1:
        raise ModelFileError("the checkpoint has no version", where=str(path))
    if version > VERSION:
        raise ModelFileError(
            f"the checkpoint has format version {version}; this bdnet-deploy reads up to {VERSION}",
            where=str(path),
            fix="pip install --upgrade bdnet-deploy",
        )
    if not (arch is None or isinstance(arch, str)) or not (io is None or isinstance(io, str)):
        raise ModelFileError("the checkpoint's architecture or I/O description is damaged", where=str(path))
    if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
        raise ModelFileError("the checkpoint has no state dict", where=str(path))
    tensors = {key: value for key, value in weights.items() if isinstance(value, LazyTensor)}
    return Checkpoint(
        path,
        _arrays(tensors, contents),
        arch=arch,
        config=None if config is None else _plain_config(path, config),
        io=None if io is None else IODescription.from_json(io),
        ignored=contents.opaque,
    )


def _plain_config(path: Path, config: Any) -> dict[str, Any]:
    """The options of an architecture: scalars, and lists of scalars."""

    def scalar(value: Any) -> bool:
        return value is None or isinstance(value, str | int | float | bool)

    if isinstance(config, dict) and all(isinstance(key, str) for key in config):
        values = config.values()
        if all(scalar(value) or (isinstance(value, list) and all(map(scalar, value))) for value in values):
            return dict(config)
    raise ModelFileError("the checkpoint's configuration is damaged", where=str(path))


def _find(path: Path, value: Any, where: str, seen: set[int]) -> tuple[str, dict[str, LazyTensor]] | None:
    """The state dict in ``value`` or under one of its usual names, and its place."""
    if isinstance(value, Opaque) and value.is_module():
        raise _whole_module(path, value.name)
    if not isinstance(value, dict) or id(value) in seen:
        return None
    seen.add(id(value))
    if where.count(".") < _MAX_NESTING:
        for key in _WRAPPERS:
            if key in value:
                found = _find(path, value[key], f"{where}.{key}" if where else key, seen)
                if found is not None:
                    return found
    tensors = {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, LazyTensor)}
    return (where, tensors) if tensors else None


def _unprefixed(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) and len(key) > len(prefix) for key in tensors):
                tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _arrays(tensors: dict[str, LazyTensor], contents: Contents) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, tensor in tensors.items():
        try:
            arrays[name] = contents.tensors.array(tensor)
        except DamagedError as error:
            raise ModelFileError(f"the tensor '{name[:80]}' cannot be read", why=str(error)) from error
    return arrays


def _whole_module(path: Path, name: str) -> ModelFileError:
    package, _, factory = name.rpartition(".")
    model = f"{package}:{factory}" if package else "package.module:factory"
    return ModelFileError(
        f"the file holds a whole pickled module ({name[:120]})",
        where=str(path),
        why="loading it would run code from the file",
        fix=f"where that class can be imported: torch.save(model.state_dict(), 'weights.pt'); "
        f"then: bdnet-deploy export --model {model} --weights weights.pt --target bdn",
    )


def _no_state_dict(path: Path, root: Any) -> ModelFileError:
    fix = "torch.save(model.state_dict(), 'weights.pt')"
    if isinstance(root, Opaque):
        return ModelFileError(
            f"the file holds a Python object ({root.name[:120]}), not tensors",
            where=str(path),
            why="loading it would run code from the file; nothing of it was run",
            fix=fix,
        )
    kind = "one tensor" if isinstance(root, LazyTensor) else f"a {type(root).__name__}"
    if isinstance(root, dict):
        kind = "a dict, but no tensors where training scripts keep them"
    return ModelFileError(f"the file holds no state dict: it holds {kind}", where=str(path), fix=fix)


def _other_kind(path: Path, kind: str) -> ModelFileError:
    if kind == "torchscript":
        return ModelFileError(
            "this is a TorchScript archive, not a checkpoint",
            where=str(path),
            why="TorchScript holds a program; it is not run",
            fix=f"torch.save(torch.jit.load('{path.name}').state_dict(), 'weights.pt'); then: "
            "bdnet-deploy export --model package.module:factory --weights weights.pt --target bdn",
        )
    if kind == "pt2":
        return ModelFileError(
            "this is a torch.export archive (.pt2), not a checkpoint",
            where=str(path),
            why="it holds a traced program with its weights, not a state dict to put into a module",
            fix="give it the name ending .pt2 so that it is imported as a program, "
            "or save the state dict: torch.save(model.state_dict(), 'weights.pt')",
        )
    if kind == "zip":
        return ModelFileError("this is a ZIP archive, but not one that torch.save wrote", where=str(path))
    return ModelFileError(
        "this is a Python pickle, but not one that torch.save wrote",
        where=str(path),
        why="pickles can run code; nothing of it was run",
        fix="torch.save(model.state_dict(), 'weights.pt')",
    )
