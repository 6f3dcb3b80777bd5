"""Random modules: what is imported computes what PyTorch computes, in double; what is not is refused with a reason."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from random_modules import random_module  # noqa: E402
from torch_modules import check  # noqa: E402

from bdnet_deploy.errors import UnsupportedError  # noqa: E402

TOLERANCE = 1e-5


def imported(seed: int) -> bool:
    """Whether the module of that seed could be imported; it is compared if so."""
    module, shape = random_module(seed)
    try:
        check(module, shape, batch=2, tolerance=TOLERANCE)
    except UnsupportedError:
        return False
    return True


@pytest.mark.parametrize("start", range(0, 400, 50))
def test_random_modules(start: int) -> None:
    done = [imported(seed) for seed in range(start, start + 50)]
    assert sum(done) > 25  # refusing is no way to be right


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 9000, 500))
def test_many_random_modules(start: int) -> None:
    done = [imported(seed) for seed in range(start, start + 500)]
    assert sum(done) > 250
