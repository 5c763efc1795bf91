"""Static post-training quantization through torchao's PT2E flow."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass
class Converted:
    """A quantized graph.

    Attributes:
        model: integer weights behind quantize and dequantize operators; takes and gives float.
        quantized: names of the layers with integer weights.
        left_in_float: names of the layers that were asked to stay in float.
    """

    model: nn.Module
    quantized: list[str]
    left_in_float: list[str]


def convert(
    model: nn.Module,
    samples: Tensor,
    *,
    calibration: str,
    per_channel: bool,
    reduce_range: bool,
    ignore: Sequence[str] = (),
    batch_size: int = 256,
) -> Converted:
    """Exports, observes and converts a model.

    Args:
        model: eager model, left as it is.
        samples: raw calibration inputs ``(N, …)``, from the training split.
        calibration: ``mse`` or ``min_max``.
        per_channel: one weight scale per output channel.
        reduce_range: 7-bit weights.
        ignore: name patterns of layers that stay in float.
        batch_size: rows per forward pass while observing.
    """
    with _quiet():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        from bigopt_plugins.compression.quantization._quantizer import IntegerKernels

    training = model.training
    model.eval()
    example = samples[:2] if len(samples) > 1 else samples.repeat_interleave(2, 0)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = torch.export.export(
            model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False
        ).module()
        quantizer = IntegerKernels(_activation(calibration), _weight(per_channel, reduce_range), ignore)
        prepared = prepare_pt2e(graph, quantizer)
        for rows in samples.split(batch_size):
            prepared(rows)
        converted = convert_pt2e(prepared)
    model.train(training)
    return Converted(converted, quantizer.quantized, quantizer.left_in_float)


def saturates() -> bool:
    """Whether this x86 processor multiplies 8-bit integers through 16-bit sums that overflow (no VNNI)."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    return "avx2" in text and "vnni" not in text


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torchao's import from telling about GPU kernels that nothing here uses."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _activation(calibration: str) -> object:
    from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    observer = HistogramObserver if calibration == "mse" else MinMaxObserver
    return QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        is_dynamic=False,
        observer_or_fake_quant_ctr=observer.with_args(eps=2**-16),
    )


def _weight(per_channel: bool, reduce_range: bool) -> object:
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    limit = 63 if reduce_range else 127
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-limit,
        quant_max=limit,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if per_channel else None,
        is_dynamic=False,
        observer_or_fake_quant_ctr=(PerChannelMinMaxObserver if per_channel else MinMaxObserver).with_args(eps=2**-16),
    )
