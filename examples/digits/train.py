"""Train a small BD-Net on scikit-learn's handwritten digits; write the model and the data of the examples.

    pip install 'bdnet-deploy[torch]' scikit-learn
    python examples/digits/train.py

Writes beside this file: model.pt, calibration.npz (100 samples of the training split) and test.npz (the 360
test images), each with x (uint8, N x 8 x 8 x 1, values 0 to 16) and y (int64, N). Under two minutes on two
CPU cores.

Several seeds are trained; the one with the lowest loss on the training split is kept. The test split chooses
nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from bdnet_deploy import checkpoint, models
from bdnet_deploy.iodesc import IODescription

PREPROCESS = {"dtype": "u8", "color": "gray", "scale": 1 / 8, "zero_point": 8}
LABELS = [str(digit) for digit in range(10)]
SHAPE = (8, 8, 1)

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


def load_split() -> tuple[U8, I64, U8, I64]:
    """1437 training and 360 test images, stratified by class, always the same ones."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=360, random_state=0, stratify=labels)
    return x, y, x_test, y_test


def to_tensor(images: U8) -> Tensor:
    """The model's input, NCHW, by the very description that is stored in the checkpoint."""
    description = IODescription.from_settings(PREPROCESS, LABELS, SHAPE)
    return torch.from_numpy(description.preprocess(images)).permute(0, 3, 1, 2).contiguous()


def train(x: Tensor, y: Tensor, seed: int, epochs: int, rate: float = 2e-2, batch: int = 64) -> nn.Module:
    """One run: Adam, cosine decay to zero, one stage.

    The rate is high because a binary weight learns only by changing its sign: 2e-3 ends about seven points
    lower.
    """
    torch.manual_seed(seed)
    module = models.create("bdnet_digits").train()
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    steps = len(x) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            optimizer.zero_grad()
            functional.cross_entropy(module(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    return module.eval()


@torch.no_grad()
def measure(module: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and the share of right answers."""
    logits = module(x)
    return float(functional.cross_entropy(logits, y)), float((logits.argmax(1) == y).float().mean())


def write_samples(path: Path, x: U8, y: I64) -> None:
    np.savez_compressed(path, x=x, y=y)
    print(f"wrote {path.name}: x {x.shape} {x.dtype}, y {y.shape}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs to choose from (default 3)")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of each run (default 40)")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    options = parser.parse_args()
    if options.seeds < 1 or options.epochs < 1:
        parser.error("--seeds and --epochs are at least 1")

    x_u8, y_train, x_test_u8, y_test = load_split()
    x, y, x_test = to_tensor(x_u8), torch.from_numpy(y_train), to_tensor(x_test_u8)
    runs: list[tuple[float, nn.Module]] = []
    for seed in range(options.seeds):
        start = time.perf_counter()
        module = train(x, y, seed, options.epochs)
        loss, accuracy = measure(module, x, y)
        print(f"seed {seed}: training loss {loss:.4f}, accuracy {accuracy:.2%}, {time.perf_counter() - start:.0f} s")
        runs.append((loss, module))
    module = min(runs, key=lambda run: run[0])[1]
    _, accuracy = measure(module, x_test, torch.from_numpy(y_test))
    print(f"test accuracy {accuracy:.2%} of {len(y_test)}")

    path = checkpoint.save(module, options.output / "model.pt", PREPROCESS, LABELS)
    print(f"wrote {path.name}: {path.stat().st_size} bytes")
    pick = np.random.default_rng(0).permutation(len(x_u8))[:100]
    write_samples(options.output / "calibration.npz", x_u8[pick], y_train[pick])
    write_samples(options.output / "test.npz", x_test_u8, y_test)


if __name__ == "__main__":
    main()
