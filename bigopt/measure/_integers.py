"""Integers as a file should hold them: no wider than they are, and laid out as kernels for integers want them.

torch exports integer graphs as quantize and dequantize operators around float ones, at whole bytes. ONNX Runtime fuses
these to integer kernels where ranges are constants; the rest is done here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bigopt.measure._integers_dynamic import integer_products
from bigopt.measure._integers_packed import pack
from bigopt.measure._integers_stored import split_biases, unfold_weights
from bigopt.measure._onnx_edit import Edit

if TYPE_CHECKING:
    from onnx import ModelProto


def shape_integers(model: ModelProto) -> ModelProto:
    """Rewrites an exported model in place; what it computes stays, up to rounding of floats.

    - Activations that are quantized over the range of their own batch become ``DynamicQuantizeLinear``, and the layers
      that read them ``MatMulInteger`` and ``ConvInteger``.
    - Weights that meet float activations become a cast and a multiplication, which ONNX Runtime does once, when it
      loads the file; a ``DequantizeLinear`` it would repeat in every run.
    - Integers that fit into 4 or 2 bits are stored in as many.
    """
    edit = Edit(model)
    integer_products(edit)
    split_biases(edit)
    unfold_weights(edit)
    pack(edit)
    edit.done()
    return model


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How torch's operators with computed scales are written in ONNX; empty where nothing has loaded them."""
    import torch

    operators = torch.ops.quantized_decomposed
    if not hasattr(operators, "quantize_per_tensor") or "tensor" not in operators.quantize_per_tensor.overloads():
        return {}
    from onnxscript import opset18 as op

    def quantize(input: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int, dtype: int) -> Any:
        write: Any = op.QuantizeLinear
        return write(input, op.Cast(scale, to=1), op.Cast(zero_point, to=dtype))

    def dequantize(
        input: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int, dtype: int, out_dtype: int = -1
    ) -> Any:
        write: Any = op.DequantizeLinear
        return write(input, op.Cast(scale, to=1), op.Cast(zero_point, to=dtype))

    return {
        operators.quantize_per_tensor.tensor: quantize,
        operators.dequantize_per_tensor.tensor: dequantize,
    }
