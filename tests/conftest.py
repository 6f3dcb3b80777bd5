"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run, and no time limit: machines differ.
settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("repeatable")


def pytest_sessionstart() -> None:
    if find_spec("bdnet_deploy") is None:
        pytest.exit("bdnet_deploy is not installed: make install (or pip install -e '.[dev]')", returncode=2)


@pytest.fixture(scope="session")
def root() -> Path:
    """The source tree."""
    return ROOT


Cli = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run ``bdnet-deploy`` in its own process, in ``tmp_path``: ``cli("cores", "--format", "json")``.

    ``encoding`` sets the encoding of its console.
    """

    def call(*arguments: str, encoding: str = "utf-8") -> CompletedProcess[str]:
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "NO_COLOR": "1"}
        return run(
            [sys.executable, "-c", "from bdnet_deploy.cli import main; main()", *arguments],
            capture_output=True,
            encoding=encoding,
            env=environment,
            cwd=tmp_path,
            timeout=600,
        )

    return call
