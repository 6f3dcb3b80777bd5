"""The model that a command's options name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdnet_deploy.errors import UsageError

if TYPE_CHECKING:
    from bdnet_deploy.model import Model


def load_model(
    source: Path | None,
    arch: str | None,
    factory: str | None,
    settings: Mapping[str, Any],
    weights: Path | None,
    inputs: tuple[tuple[int, ...], ...],
) -> Model:
    """:func:`bdnet_deploy.load` for the options of :func:`~bdnet_deploy.cli.common.model_options`.

    Raises:
        UsageError: neither a file nor code was named, or both.
    """
    if (source is None) == (factory is None) and arch is None:
        raise UsageError(
            "name one model: a file, or --model package.module:factory",
            fix="bdnet-deploy inspect model.pt, or bdnet-deploy inspect --model bdnet_deploy.models:bdnet_mobilenet_v1",
        )
    from bdnet_deploy.cli import console
    from bdnet_deploy.model import load

    console.note(f"importing {source or factory or arch}")
    return load(source, arch=arch, model=factory, settings=settings, weights=weights, inputs=inputs or None)
