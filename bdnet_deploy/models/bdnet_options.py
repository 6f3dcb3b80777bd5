"""The choices that BD-Net's public record leaves open, each a named option."""

from __future__ import annotations

from dataclasses import dataclass

_CHOICES = {
    "ternary": ("depthwise", "both", "none"),
    "residual_dw": ("pre", "post", "none"),
    "residual_pw": ("pre", "post", "none"),
    "thresholds": ("learned", "fixed"),
    "threshold_per": ("channel", "layer"),
    "alpha": ("mean", "learned", "one"),
    "weights_dw": ("binary", "ternary", "real"),
    "weights_pw": ("binary", "ternary", "real"),
    "gradient": ("clipped", "quadratic"),
}


def check_choice(option: str, value: object, known: tuple[str, ...]) -> None:
    """Raise a ValueError that names the option, the value and the valid values."""
    if value not in known:
        raise ValueError(f"{option} is {value!r}; it is one of {', '.join(known)}")


def check_count(option: str, value: object) -> None:
    """Raise a ValueError unless the value is a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{option} is {value!r}; it is a positive whole number")


@dataclass(frozen=True)
class BDNetOptions:
    """How BD-Net (arXiv 2511.17633) is read: its public record holds no equations, so these are readings.

    Attributes:
        ternary: which activations are 1.58-bit: those of the ``"depthwise"`` convolutions, ``"both"``, or
            ``"none"`` (1-bit everywhere).
        weights_dw, weights_pw: weights of the depth-wise and of the point-wise convolutions: ``"binary"``,
            ``"ternary"`` (the other reading of "1.58-bit"; with ``ternary="none"`` it is ternary weights on
            binary activations), or ``"real"`` (a first training stage that binarizes activations alone).
        residual_dw, residual_pw: where the residual meets the two convolutions: ``"pre"``: BN(conv + R(x)),
            ``"post"``: BN(conv) + R(x), ``"none"``. The paper's cause for pre-BN, the low variance of
            depth-wise outputs, does not hold for point-wise ones: hence "post" there.
        thresholds: ``"learned"`` or ``"fixed"`` (at 0, and at -+ half_width).
        threshold_per: one threshold or pair per ``"channel"`` or per ``"layer"``.
        half_width: initial half distance between the two thresholds of a ternary activation.
        alpha: scale of an output channel: ``"mean"`` of the latent |W|, ``"learned"``, or ``"one"``.
        weight_std: standard deviation of the initial latent weights; None is sqrt(2 / fan_in). With a pre-BN
            residual and ``alpha="mean"`` it sets how much the convolution counts beside the residual.
        gradient: straight-through window of the activations: ``"clipped"`` or ``"quadratic"``.
        activation_clip, weight_clip: half-widths of the straight-through windows.
        bn_momentum: momentum of the running statistics of the batch normalizations.
    """

    ternary: str = "depthwise"
    weights_dw: str = "binary"
    weights_pw: str = "binary"
    residual_dw: str = "pre"
    residual_pw: str = "post"
    thresholds: str = "learned"
    threshold_per: str = "channel"
    half_width: float = 0.5
    alpha: str = "mean"
    weight_std: float | None = None
    gradient: str = "clipped"
    activation_clip: float = 1.0
    weight_clip: float = 1.5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        for option, known in _CHOICES.items():
            check_choice(option, getattr(self, option), known)
        for option in ("activation_clip", "weight_clip"):
            if not getattr(self, option) > 0:
                raise ValueError(f"{option} is {getattr(self, option)!r}; it is greater than 0")
