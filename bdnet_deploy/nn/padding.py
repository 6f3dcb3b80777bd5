"""The "same" padding of TensorFlow and Keras."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def same_padding(size: int, kernel: int, stride: int = 1) -> tuple[int, int]:
    """Values before and behind an axis so that there are ceil(size / stride) outputs; the odd one goes behind.

    https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SamePad2d(nn.Module):
    """Pads (N, C, H, W) as :func:`same_padding` says for the map's own size.

    Args:
        kernel, stride: of the unpadded layer behind it.
        value: what the border holds; binary convolutions without zeros take +1 ("one-padding").
    """

    def __init__(self, kernel: int, stride: int = 1, value: float = 0.0) -> None:
        super().__init__()
        self.kernel, self.stride, self.value = kernel, stride, value

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = same_padding(x.shape[2], self.kernel, self.stride)
        left, right = same_padding(x.shape[3], self.kernel, self.stride)
        return functional.pad(x, (left, right, top, bottom), value=self.value)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, value={self.value}"
