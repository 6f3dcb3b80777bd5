"""The registry of architectures: a name, a configuration and a factory each."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from bdnet_deploy.errors import UsageError, unknown_name
from bdnet_deploy.models.published import Translation

if TYPE_CHECKING:
    from torch import nn

Config = TypeVar("Config")
_FACTORIES: dict[str, Callable[..., nn.Module]] = {}
_CONFIGS: dict[str, type[Any]] = {}
_PUBLISHED: dict[str, Translation] = {}


def register(
    name: str, config: type[Config], published: Translation | None = None
) -> Callable[[Callable[[Config], nn.Module]], Callable[..., nn.Module]]:
    """Register the decorated ``factory(config) -> module`` under ``name``.

    The name then stands for a function that takes the fields of ``config``, a dataclass with defaults, as
    keywords. Its modules remember how to be built again: ``bdnet_arch`` (the name) and ``bdnet_config``
    (every option, as plain JSON data).

    Args:
        name: the architecture's.
        config: its options.
        published: how the authors' checkpoints become ours, see :mod:`bdnet_deploy.models.published`.
    """

    def decorate(factory: Callable[[Config], nn.Module]) -> Callable[..., nn.Module]:
        def build(**options: Any) -> nn.Module:
            settings = _configure(name, config, options)
            module: Any = factory(settings)
            module.bdnet_arch = name
            # Through JSON: lists for tuples, so that a saved configuration equals this one.
            module.bdnet_config = json.loads(json.dumps(dataclasses.asdict(settings)))  # type: ignore[call-overload]
            built: nn.Module = module
            return built

        build.__name__ = build.__qualname__ = name
        build.__module__ = factory.__module__
        build.__doc__ = f"{inspect.getdoc(factory)}\n\nOptions: those of {config.__name__}.\n\n{inspect.getdoc(config)}"
        build.__signature__ = inspect.signature(config)  # type: ignore[attr-defined]
        if name in _FACTORIES:
            raise ValueError(f"two architectures are named {name}")
        _FACTORIES[name], _CONFIGS[name] = build, config
        if published is not None:
            _PUBLISHED[name] = published
        return build

    return decorate


def _configure(name: str, config: type[Config], options: dict[str, Any]) -> Config:
    known = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    try:
        return config(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the options do not make a {name}", why=str(error)) from error


def names() -> list[str]:
    """The names of all architectures, sorted."""
    return sorted(_FACTORIES)


def published(arch: str) -> Translation | None:
    """How the authors' checkpoints of an architecture become ours, where that is known."""
    return _PUBLISHED.get(arch)


def options(arch: str) -> dict[str, Any]:
    """The options of an architecture with their default values.

    Raises:
        UsageError: no architecture has that name.
    """
    if arch not in _CONFIGS:
        raise unknown_name("architecture", arch, _CONFIGS)
    return {field.name: field.default for field in dataclasses.fields(_CONFIGS[arch])}


def create(arch: str, **config: Any) -> nn.Module:
    """A new module with random weights, in training mode, remembering ``bdnet_arch`` and ``bdnet_config``.

    Args:
        arch: one of :func:`names`.
        config: options of the architecture, see :func:`options`; the others take their defaults.

    Raises:
        UsageError: unknown architecture or option, or values that do not fit each other.
        MissingPackageError: PyTorch is not installed.
    """
    if arch not in _FACTORIES:
        raise unknown_name("architecture", arch, _FACTORIES)
    try:
        return _FACTORIES[arch](**config)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:  # PyTorch's too: out of memory
        raise UsageError(f"the options do not make a {arch}", why=str(error)) from error
