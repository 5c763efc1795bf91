from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from measure_nets import IMAGE
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bigopt.measure import count, count_onnx
from bigopt.measure.counts import refined
from bigopt.vocabulary.errors import RequestError

FLOAT = TensorProto.FLOAT


def write(path: Path, nodes: list[Any], tensors: list[Any], shape: list[Any], opset: int = 21) -> Path:
    """A file with these operators from ``input`` to ``logits``."""
    given = helper.make_tensor_value_info("input", FLOAT, ["batch", *shape])
    graph = helper.make_graph(nodes, "g", [given], [helper.make_tensor_value_info("logits", FLOAT, None)], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def stored(name: str, value: Any, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype=dtype), name)


def test_a_float_file_counts_as_its_model(residual: nn.Module, residual_file: Path) -> None:
    file, model = count_onnx(residual_file), count(residual, IMAGE)
    assert (file.macs, file.bops) == (model.macs, model.bops) == (11_532, 11_532 * 1024)
    assert file.parameters == model.parameters - 8  # batch norm's scale and shift went into the convolution
    assert file.nonzero == file.parameters and file.weight_bits == 32


def test_a_quantized_file_counts_as_its_graph(quantized: nn.Module, quantized_file: Path) -> None:
    file, graph = count_onnx(quantized_file), count(quantized, IMAGE)
    for fact in ("parameters", "nonzero", "macs", "bops", "weight_bits"):
        assert getattr(file, fact) == getattr(graph, fact), fact
    assert {(layer.weight_bits, layer.activation_bits) for layer in file.layers} == {(8, 8)}


def test_packed_weights_count_with_their_width_on_disk(tmp_path: Path) -> None:
    """INT4 weights that are unpacked for an 8-bit kernel: four bits, whatever the kernel reads."""
    values = np.array([[-8, 7, 0, 0], [1, 0, 3, 4]])
    packed = helper.make_tensor("packed", TensorProto.INT4, [2, 4], values.flatten().tolist())
    file = write(
        tmp_path / "model.onnx",
        [
            helper.make_node("Cast", ["packed"], ["unpacked"], to=TensorProto.INT8),
            helper.make_node("DequantizeLinear", ["unpacked", "scales"], ["weight"], axis=0),
            helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["levels"]),
            helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["x"]),
            helper.make_node("Gemm", ["x", "weight", "bias"], ["logits"], transB=1),
        ],
        [
            packed,
            stored("scales", [0.5, 0.5]),
            stored("scale", 0.1),
            stored("zero", 3, np.uint8),
            stored("bias", [1.0, 0.0]),
        ],
        [4],
    )
    counts = count_onnx(file)
    assert (counts.parameters, counts.nonzero, counts.macs, counts.bops) == (8 + 2, 5 + 1, 8, 8 * 4 * 8)
    assert counts.weight_bits == pytest.approx((8 * 4 + 2 * 32) / 10)


def test_zero_points_stand_for_zero(tmp_path: Path) -> None:
    file = write(
        tmp_path / "model.onnx",
        [
            helper.make_node("DequantizeLinear", ["w", "scales", "zeros"], ["weight"], axis=1),
            helper.make_node("MatMul", ["input", "weight"], ["logits"]),
        ],
        [
            stored("w", [[1, 2], [1, 3], [0, 2]], np.uint8),
            stored("scales", [1, 1]),
            stored("zeros", [1, 2], np.uint8),
        ],
        [3],
    )
    counts = count_onnx(file)
    assert (counts.parameters, counts.nonzero, counts.macs, counts.bops) == (6, 2, 6, 6 * 8 * 32)


@pytest.mark.parametrize(
    ("node", "shape", "weights", "macs"),
    [
        (helper.make_node("ConvTranspose", ["input", "w"], ["logits"], strides=[2, 2]), [4, 5, 5], (4, 6, 2, 2), 2400),
        (helper.make_node("Conv", ["input", "w"], ["logits"], group=4), [8, 6, 6], (8, 2, 3, 3), 8 * 16 * 18),
        (helper.make_node("Einsum", ["input", "w"], ["logits"], equation="bli,io->blo"), [5, 8], (8, 3), 5 * 8 * 3),
        (helper.make_node("Einsum", ["input", "w"], ["logits"], equation="...i,io->...o"), [5, 8], (8, 3), 120),
        (helper.make_node("MatMul", ["input", "w"], ["logits"]), [5, 8], (8, 3), 120),
    ],
)
def test_macs_by_hand(node: Any, shape: list[int], weights: tuple[int, ...], macs: int, tmp_path: Path) -> None:
    counts = count_onnx(write(tmp_path / "model.onnx", [node], [stored("w", np.ones(weights))], shape))
    assert (counts.macs, counts.parameters) == (macs, np.prod(weights))


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 4)])
def test_attention_as_one_operator(shape: tuple[int, ...], tmp_path: Path) -> None:
    heads = {"q_num_heads": 2, "kv_num_heads": 2} if len(shape) == 2 else {}
    node = helper.make_node("Attention", ["input", "input", "input"], ["logits"], **heads)
    assert count_onnx(write(tmp_path / "model.onnx", [node], [], [*shape], opset=23)).macs == 2 * 5 * 5 * 8


def test_a_second_open_dimension_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["input", "w"], ["logits"])
    file = write(tmp_path / "model.onnx", [node], [stored("w", np.ones((8, 3)))], ["length", 8])
    with pytest.raises(RequestError, match="length"):
        count_onnx(file)


def test_a_claimed_width_is_believed_where_there_are_integers(residual_file: Path, quantized_file: Path) -> None:
    integers, floats = count_onnx(quantized_file), count_onnx(residual_file)
    assert refined(integers, (4, 8)).bops == integers.macs * 32
    assert refined(floats, (4, 8)).bops == floats.macs * 1024
    assert refined(integers, None) is integers
