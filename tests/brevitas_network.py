"""Run by a Python that has Brevitas: ``python brevitas_network.py FOLDER`` writes a network as QONNX by both exporters, its
inputs, Brevitas' own outputs, and those of the executor of the package qonnx."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import brevitas.nn as qnn  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from brevitas.export import export_qonnx  # noqa: E402
from brevitas.quant import (  # noqa: E402
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryActPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    Uint8ActPerTensorFloat,
)
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402
from qonnx.core.onnx_exec import execute_onnx  # noqa: E402
from qonnx.transformation.infer_shapes import InferShapes  # noqa: E402
from torch import Tensor, nn  # noqa: E402


class Net(nn.Module):
    """Binary weights and activations, ternary 2-bit narrow ones, batch normalization, max pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn0 = nn.BatchNorm2d(8)
        self.act1 = qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)
        self.conv1 = qnn.QuantConv2d(8, 16, 3, padding=1, bias=False, weight_quant=SignedBinaryWeightPerTensorConst)
        self.bn1 = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(2)
        self.act2 = qnn.QuantIdentity(act_quant=SignedTernaryActPerTensorConst)
        self.conv2 = qnn.QuantConv2d(16, 16, 3, padding=1, bias=False, weight_quant=SignedTernaryWeightPerTensorConst)
        self.bn2 = nn.BatchNorm2d(16)
        self.act3 = qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)
        self.fc = qnn.QuantLinear(16, 10, bias=False, weight_quant=SignedBinaryWeightPerTensorConst)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.bn1(self.conv1(self.act1(self.bn0(self.stem(x))))))
        x = self.bn2(self.conv2(self.act2(x)))
        return self.fc(self.act3(x.mean((2, 3))))


class Wide(nn.Module):
    """An 8-bit input, 8-bit weights, activations of 4, 8 and 2 bits whose scales are learned, binary weights, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat)
        self.stem = qnn.QuantConv2d(3, 8, 3, padding=1, weight_quant=Int8WeightPerTensorFloat)
        self.bn0 = nn.BatchNorm2d(8)
        self.act0 = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=4)
        self.conv1 = qnn.QuantConv2d(8, 8, 3, padding=1, bias=False, weight_quant=SignedBinaryWeightPerTensorConst)
        self.bn1 = nn.BatchNorm2d(8)
        self.act1 = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat)
        self.conv2 = qnn.QuantConv2d(
            8, 8, 3, padding=1, groups=8, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=4
        )
        self.bn2 = nn.BatchNorm2d(8)
        self.act2 = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=2)
        self.fc = qnn.QuantLinear(8, 10, bias=True, weight_quant=Int8WeightPerTensorFloat)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act0(self.bn0(self.stem(self.input(x))))
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)) + y)
        return self.fc(y.mean((2, 3)))


def main(folder: Path) -> None:
    for kind, module in (("", Net), ("wide-", Wide)):
        torch.manual_seed(0)
        write(folder, kind, module().train())


def write(folder: Path, kind: str, net: nn.Module) -> None:
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(16, 3, 8, 8))
        for bn in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            bn.weight.uniform_(0.5, 1.5)
            bn.bias.uniform_(-0.3, 0.3)
        net.eval()
        x = torch.randn(20, 3, 8, 8)
        arrays = {"x": x.numpy(), "brevitas": torch.cat([net(row[None]) for row in x]).numpy()}
    for name, dynamo in (("today", True), ("before", False)):
        path = folder / f"{kind}{name}.onnx"
        export_qonnx(net, args=x[:1], export_path=str(path), dynamo=dynamo)
        wrapper = ModelWrapper(str(path)).transform(InferShapes())
        given, got = wrapper.graph.input[0].name, wrapper.graph.output[0].name
        runs = [execute_onnx(wrapper, {given: row[None]})[got] for row in arrays["x"]]
        arrays[name] = np.concatenate(runs)
    np.savez(folder / f"{kind}outputs.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
