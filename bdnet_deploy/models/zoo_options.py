"""Options that the re-implemented networks of the literature share, and rules of published names that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bdnet_deploy.models.bdnet_options import check_choice, check_count
from bdnet_deploy.models.published import Rule


def check_counts(option: str, values: object) -> None:
    """Raise a ValueError unless the value is a list of positive integers."""
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{option} is {values!r}; it is a list of numbers")
    for value in values:
        check_count(option, value)


@dataclass(frozen=True)
class ZooOptions:
    """Options of networks with a real stem, binary convolutions and a linear classifier.

    Attributes:
        input_size: height and width of the image.
        classes: outputs.
        in_channels: channels of the image.
        bn_momentum: momentum of the running statistics of the batch normalizations.
    """

    input_size: int = 224
    classes: int = 1000
    in_channels: int = 3
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        for option in ("input_size", "classes", "in_channels"):
            check_count(option, getattr(self, option))


@dataclass(frozen=True)
class TwoStageOptions(ZooOptions):
    """ZooOptions of networks that are trained with real weights first.

    Attributes:
        weights: ``"binary"``, or ``"real"``: the first of two training stages, which binarizes activations alone;
            its state dict loads into the binary network.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
    """

    weights: str = "binary"
    gradient: str = "quadratic"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("weights", self.weights, ("binary", "real"))
        check_choice("gradient", self.gradient, ("clipped", "quadratic"))


def check_strides(input_size: int, strides: Sequence[int]) -> None:
    """Raise a ValueError unless strides are 1 or 2 and the map stays even where a stride of 2 meets it."""
    size = input_size
    for stride in strides:
        if stride not in (1, 2):
            raise ValueError(f"a stride is {stride}; strides are 1 or 2")
        if size % stride:
            total = 2 ** sum(stride == 2 for stride in strides)
            raise ValueError(f"input_size is {input_size}; it is a multiple of {total}, the product of all strides")
        size //= stride


def batch_norm(theirs: str, ours: str) -> Rule:
    """The five tensors of a batch normalization; the group after those in ``theirs`` is which of them."""
    groups = theirs.count("(")
    return Rule(rf"{theirs}\.(weight|bias|running_mean|running_var|num_batches_tracked)", rf"{ours}.\{groups + 1}")
