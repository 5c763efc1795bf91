from __future__ import annotations

from pathlib import Path

import pytest
import torch
from measure_nets import IMAGE, Residual, plain, quantize
from torch import nn

from bigopt.measure import export_onnx


@pytest.fixture(scope="session")
def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture(scope="session")
def quantized() -> nn.Module:
    torch.manual_seed(1)
    return quantize(plain(), torch.rand(64, 1, 8, 8))


@pytest.fixture(scope="session")
def residual_file(residual: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(residual, IMAGE, tmp_path_factory.mktemp("onnx") / "residual.onnx")


@pytest.fixture(scope="session")
def quantized_file(quantized: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(quantized, IMAGE, tmp_path_factory.mktemp("onnx") / "quantized.onnx")
