"""From a checkpoint, an architecture's name or the user's own factory to a torch module."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bdnet_deploy import models
from bdnet_deploy.checkpoint.read import Checkpoint, read
from bdnet_deploy.cudaless import without_cuda
from bdnet_deploy.errors import BdnetError, ModelFileError, UsageError, require

if TYPE_CHECKING:
    from torch import nn

State = Mapping[str, npt.NDArray[Any]]
_SHOWN = 3
_COUNTER = "num_batches_tracked"


def build(checkpoint: Checkpoint, arch: str | None = None, config: Mapping[str, Any] | None = None) -> nn.Module:
    """The torch module of a checkpoint, in eval mode on the CPU, with its weights.

    Args:
        checkpoint: what :func:`read` returned.
        arch: one of ``models.names()``; None takes the checkpoint's own.
        config: options of the architecture; they override the checkpoint's own.

    Returns:
        The module with ``bdnet_arch``, ``bdnet_config`` and ``bdnet_io`` (the I/O description or None).

    Raises:
        UsageError: a foreign state dict without ``arch`` (the architectures whose keys fit are named),
            unknown options.
        ModelFileError: the weights do not fit the architecture.
        MissingPackageError: PyTorch is not installed.
    """
    torch = require("torch", extra="torch")
    where = str(checkpoint.path)
    name = arch or checkpoint.arch
    if name is None:
        raise _no_architecture(checkpoint)
    options = dict(config or {})
    if name == checkpoint.arch:
        options = {**(checkpoint.config or {}), **options}
    try:
        # Shapes only: a file may declare any size, but memory is taken for the weights that it has.
        with torch.device("meta"):
            module = models.create(name, **options)
    except UsageError as error:
        if not config and name == checkpoint.arch:
            what = "the checkpoint's configuration is damaged"
            raise ModelFileError(what, where=where, why=str(error)) from error
        raise
    _load(module, checkpoint.state_dict, where)
    module.bdnet_io = checkpoint.io
    return module.eval()


def load_module(
    path: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    model: str | None = None,
    set_: Mapping[str, Any] | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> nn.Module:
    """A torch module in eval mode from whatever the user has.

    * ``path``: our checkpoint, or a state dict with ``arch``;
    * ``arch`` alone: random weights, always the same ones;
    * ``model``: the user's ``package.module:factory``, called with ``set_``, with ``weights`` where given.
      This imports and runs the user's own code; the current folder is searched first, as ``python -m`` does.

    Args:
        path: a checkpoint.
        arch: one of ``models.names()``.
        model: ``"package.module:factory"``.
        set_: options of the architecture or arguments of the factory; text is read as JSON where it is JSON
            ("3", "true", "[1, 2]"), and is text otherwise.
        weights: a checkpoint, too, for ``arch`` or ``model``.

    Raises:
        UsageError: arguments that exclude each other, unknown names, a factory that cannot be imported or
            called.
        ModelFileError: see :func:`read` and :func:`build`.
    """
    settings = {key: _parse(value) for key, value in (set_ or {}).items()}
    if path is not None and weights is not None:
        raise UsageError("a model file and --weights at once", fix="give the file with the weights once")
    file = weights if path is None else path
    if model is not None:
        if arch is not None:
            raise UsageError("--arch and --model at once", fix="--arch is a built-in network, --model your own")
        return _foreign(model, settings, file)
    if file is not None:
        return build(read(file), arch, settings)
    if arch is None:
        raise UsageError("there is no model", fix="give a file, --arch, or --model package.module:factory")
    torch = require("torch", extra="torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = models.create(arch, **settings)
    module.bdnet_io = None
    return module.eval()


def _parse(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except (ValueError, RecursionError):
        return value


def _foreign(model: str, settings: dict[str, Any], file: str | os.PathLike[str] | None) -> nn.Module:
    torch = require("torch", extra="torch")
    factory = _factory(model)
    try:
        with without_cuda():
            module = factory(**settings)
    except Exception as error:  # the user's code may raise anything
        raise UsageError(
            f"{model} failed when called with {settings or 'no arguments'}",
            why=f"{type(error).__name__}: {error}",
            fix="give its arguments as --set name=value",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{model} returned a {type(module).__name__}, not a torch.nn.Module")
    foreign: nn.Module = module
    checkpoint = None if file is None else read(file)
    if checkpoint is not None:
        _load(foreign, checkpoint.state_dict, str(checkpoint.path))
    foreign.bdnet_io = checkpoint.io if checkpoint is not None else None
    return foreign.eval()


def _factory(model: str) -> Any:
    package, colon, name = model.partition(":")
    if not colon or not package or not name:
        raise UsageError(f"--model is '{model}'; it is package.module:factory, e.g. nets.resnet:resnet18")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with without_cuda():
            found: Any = importlib.import_module(package)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        own = package == missing or package.startswith(f"{missing}.")
        raise UsageError(
            f"the module {package} cannot be imported",
            why=f"there is no module {missing}" if own else f"it needs the Python package {missing}",
            fix="run the command in the folder that holds it" if own else f"pip install {missing}",
        ) from error
    except Exception as error:  # the user's code may raise anything
        mismatch = "torchvision::" in str(error)
        raise UsageError(
            f"the module {package} cannot be imported",
            why=f"{type(error).__name__}: {error}",
            fix="install the torchvision that belongs to this torch" if mismatch else None,
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"the module {package} has no {name}")
        found = getattr(found, part)
    return found


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _same_names(state: State, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the names are those of the module.

    Checkpoints older than PyTorch 0.4.1 lack the counter of batches, which inference does not read.
    """
    return {key for key in state if not key.endswith(_COUNTER)} == {key for key in shapes if not key.endswith(_COUNTER)}


def _in_our_layout(arch: str | None, state: State, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """The state under our names: as it is, or translated from the layout that the network's authors publish."""
    translation = None if arch is None or _same_names(state, shapes) else models.published(arch)
    translated = None if translation is None else translation(state, shapes)
    return state if translated is None else translated


def _load(module: nn.Module, state: State, where: str) -> None:
    """Put the arrays into the module; every name and shape must match."""
    torch = require("torch", extra="torch")
    own = module.state_dict()
    given = state
    state = _in_our_layout(getattr(module, "bdnet_arch", None), state, _shapes(module))
    translated = "" if state is given else " (published names, translated into ours)"
    missing = [key for key in own if key not in state and not key.endswith(_COUNTER)]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        parts = (("missing", missing), ("unexpected", unexpected))
        raise ModelFileError(
            "the weights do not fit the network",
            where=where,
            why="; ".join(_listed(kind, names) for kind, names in parts if names) + translated,
            fix="check --arch or --model, and the options given with --set",
        )
    wrong = [
        f"{key} is {_shape(state[key].shape)} in the file and {_shape(own[key].shape)} in the network"
        for key in own
        if key in state and tuple(state[key].shape) != tuple(own[key].shape)
    ]
    if wrong:
        raise ModelFileError(
            "the weights do not fit the network",
            where=where,
            why=_listed("shapes", wrong) + translated,
            fix="check the options given with --set (width, classes, ...)",
        )
    tensors = {key: torch.zeros((), dtype=own[key].dtype) for key in own if key not in state}
    for key, array in state.items():
        # A copy: the module may be trained further.
        tensors[key] = torch.from_numpy(_torch_array(array)).to(own[key].dtype)
    module.load_state_dict(tensors, assign=any(value.is_meta for value in own.values()))


def _torch_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """PyTorch of some versions has no unsigned types beyond 8 bits."""
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        return array.astype(np.int64)
    return array.copy()


def _listed(kind: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{kind}: {', '.join(name[:120] for name in names[:_SHOWN])}{more}"


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _no_architecture(checkpoint: Checkpoint) -> UsageError:
    """Name the architectures whose defaults have exactly the keys of the state dict, ours or published, else the
    nearest one; of those with the right keys the ones with the right shapes."""
    torch = require("torch", extra="torch")
    overlap: dict[str, float] = {}
    same_shapes: list[str] = []
    for name in models.names():
        try:
            with torch.device("meta"):
                shapes = _shapes(models.create(name))
        except BdnetError:
            continue
        state = _in_our_layout(name, checkpoint.state_dict, shapes)
        given, own = ({key for key in keys if not key.endswith(_COUNTER)} for keys in (state, shapes))
        overlap[name] = len(own & given) / max(len(own | given), 1)
        if own == given and all(state[key].shape == shapes[key] for key in own):
            same_shapes.append(name)
    fitting = same_shapes or [name for name, share in overlap.items() if share == 1]
    near = sorted((name for name, share in overlap.items() if 0.5 <= share < 1), key=lambda name: -overlap[name])
    why = "the file holds weights alone, not which network they belong to"
    if fitting:
        sizes = "" if same_shapes else ", with other options (--set ...)"
        fix = f"its names fit: {', '.join(fitting)}; e.g. --arch {fitting[0]}{sizes}"
    elif near:
        fix = f"its names fit none exactly; nearest: --arch {near[0]}, with other options (--set ...)"
    else:
        command = f"--model package.module:factory --weights {checkpoint.path.name}"
        fix = f"its names fit no built-in network: {command}"
    return UsageError("the architecture is not known", where=str(checkpoint.path), why=why, fix=fix)
