"""Integers in files: packing, and the rewriting of products with dynamic ranges and of weights that meet floats."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bigopt.measure._integers import shape_integers
from bigopt.measure._integers_packed import packed_bytes


@pytest.mark.parametrize(("bits", "kind"), [(4, TensorProto.INT4), (2, TensorProto.INT2)], ids=["4", "2"])
def test_onnx_reads_packed_bytes(bits, kind):
    values = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 3)).astype(np.int8)
    raw = packed_bytes(values, bits)
    assert len(raw) == -(-15 * bits // 8)
    tensor = TensorProto(data_type=kind, dims=values.shape, raw_data=raw)
    assert (numpy_helper.to_array(tensor).astype(np.int8) == values).all()


def weighted(values, quantized_input):
    """A matrix product with stored integers, of a float or a quantized input."""
    stored = {"w": values, "s": np.full(values.shape[1], 0.1, np.float32), "z": np.zeros(values.shape[1], np.int8)}
    stored |= {"step": np.float32(0.05), "point": np.uint8(3)}
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "step", "point"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "point"], ["x"]),
    ] * quantized_input + [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], axis=1),
        helper.make_node("MatMul", ["x" if quantized_input else "input", "wd"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, len(values)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, values.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model, x):
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"input": x}
    )[0]


@pytest.mark.parametrize(("most", "kind"), [(7, "INT4"), (100, "INT8")], ids=["4", "8"])
@pytest.mark.parametrize("quantized_input", [False, True], ids=["float", "integer"])
def test_rewriting_changes_the_form_only(most, kind, quantized_input):
    values = np.random.default_rng(1).integers(-most, most + 1, (32, 16)).astype(np.int8)
    x = np.random.default_rng(2).random((4, 32), np.float32)
    model = weighted(values, quantized_input)
    given = (np.clip(np.round(x / 0.05) + 3, 0, 255) - 3) * 0.05 if quantized_input else x
    expected = given @ (values * 0.1)
    onnx.checker.check_model(shape_integers(model), full_check=True)
    assert np.abs(run(model, x) - expected).max() < 1e-3
    kinds = [node.op_type for node in model.graph.node]
    assert ("DequantizeLinear" in kinds) == quantized_input  # kept for fusing, else computed once
    types = [
        TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer if tensor.dims == [32, 16]
    ]
    assert types == [kind]
    assert model.opset_import[0].version == (21 if kind == "INT4" else 18)
