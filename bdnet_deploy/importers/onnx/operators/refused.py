"""Why an operator is not supported, and what to do."""

from __future__ import annotations

_CONTROL = ("control flow that depends on the data", "unroll the loop, or fix the choice before exporting")
_RECURRENT = ("recurrent layers keep a state from step to step", "deploy the layers around it")
_RANDOM = ("its result is random", "remove it: what is deployed must give the same result every time")
_INTEGER = (
    "the model is quantized to integers already",
    "export the float model; fixed point is made of it here, with --numerics fixed16 --calibrate",
)
_SEQUENCE = ("sequences of tensors have no fixed shape", "use tensors, joined with Concat")

_WHY: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("Loop", "Scan"), _CONTROL),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _RECURRENT),
    **dict.fromkeys(
        "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split(), _RANDOM
    ),
    **dict.fromkeys("ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul".split(), _INTEGER),
    **dict.fromkeys(
        "ConcatFromSequence Optional OptionalGetElement SequenceAt SequenceConstruct SequenceEmpty SequenceErase "
        "SequenceInsert SequenceLength SequenceMap SplitToSequence".split(),
        _SEQUENCE,
    ),
    "NonMaxSuppression": ("how many boxes come out depends on the data", "deploy the network without it"),
    "NonZero": ("how many indices come out depends on the data", "use a mask, with Where"),
    "Trunc": ("cutting bits off an accumulator has no counterpart here", "export without truncation"),
}
_DEFAULT_FIX = "replace it, or cut the model before it: onnx.utils.extract_model; see docs/importing.md"


def why_refused(domain: str, op: str) -> tuple[str, str]:
    """(why, fix)."""
    if op in _WHY:
        return _WHY[op]
    if domain in ("com.microsoft", "com.microsoft.nchwc", "ai.onnx.contrib"):
        return "it belongs to a runtime, not to ONNX", "give the file as it was before the runtime optimized it"
    if domain:
        return f"the domain '{domain}' is not read", "export with standard operators, or with QONNX's quantizers"
    return "no layer of the networks that are deployed here has it", _DEFAULT_FIX
