"""Quantization of weights and activations to integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part, State
from bigopt.vocabulary.run import Run

if TYPE_CHECKING:
    from bigopt_plugins.compression.quantization._build import Recipe
    from bigopt_plugins.compression.quantization._network import QuantizedNetwork

FLOAT = 32


class Quantization(Part):
    """Weights of 2 to 8 bits, activations in float or of 2 to 8 bits, as ONNX Runtime's integer kernels want them.

    ``w ≈ s · (q − z)`` with integers ``q`` (Jacob et al. 2018, arXiv:1712.05877). Weights of convolutions, linear
    layers and embeddings are rounded; so are the activations that convolutions and linear layers read, and residual
    additions, means, poolings and joins between them. Batch norm is folded. Modes:

    - ``static``: fixed ranges of activations, seen on training samples. QLinearConv, QLinearAdd, QGemm.
    - ``dynamic``: 8-bit activations over the range of each batch. ConvInteger, MatMulInteger.
    - ``weight_only``: float activations; a small file that runs as fast as the float one.
    - ``qat``: as static, after training with rounding in the forward pass and learned steps (LSQ, Esser et al. 2020,
      arXiv:1902.08153), from the calibrated ones on. Batch norms are trained on, and folded exactly at the end: a
      positive factor on a channel only scales its step. A network's modules, their names and their hooks stay while it
      trains.

    The file holds 3 and 4 bits in 4, 2 bits in 2 and 5 to 8 in 8; the table ``quantization`` says what each layer takes
    and what an entropy coder would make of it. Activations below 8 bits are 8-bit integers cut to fewer levels: as
    accurate as on hardware that has such, not faster. The input of the network keeps 8 bits. The model is a graph of
    integers afterwards, which cannot be trained or pruned.

    Args:
        bits: width of weights, 2 to 8.
        mode: see above.
        activation_bits: width of activations, 2 to 8; null means 8, or float where the mode is ``weight_only``.
        calibration: ``minmax`` takes the whole range, ``percentile`` cuts the outermost values off, ``mse`` shrinks
            ranges to the least squared rounding error; of weights and activations.
        percentile: share of the values within the range, in percent.
        samples: training samples that the ranges of activations are taken from.
        granularity: one step per tensor, per output channel, or per group of weights within a channel. Integer kernels
            exist for the first two; groups run in float.
        group_size: weights of a group.
        symmetric: 0 is the integer 0 in weights; otherwise ranges need not be centred.
        reduce_range: 7-bit integers for 8-bit weights that meet 8-bit activations, for processors whose products
            saturate at 16 bits (x86 without VNNI); null asks the processor.

    Raises:
        RequestError: an argument is out of range.
    """

    leaves: ClassVar[State] = "frozen"

    def __init__(
        self,
        bits: int = 8,
        mode: Literal["static", "dynamic", "weight_only", "qat"] = "static",
        activation_bits: int | None = None,
        calibration: Literal["mse", "percentile", "minmax"] = "mse",
        percentile: float = 99.99,
        samples: int = 512,
        granularity: Literal["per_channel", "per_tensor", "per_group"] = "per_channel",
        group_size: int = 32,
        symmetric: bool = True,
        reduce_range: bool | None = None,
    ) -> None:
        problems = []
        for name, value in (("bits", bits), ("activation_bits", 8 if activation_bits is None else activation_bits)):
            if not 2 <= value <= 8:
                problems.append(f"{name}: got {value}, expected 2 to 8")
        if mode not in ("static", "dynamic", "weight_only", "qat"):
            problems.append(f"mode: got {mode!r}, expected static, dynamic, weight_only or qat")
        if mode == "weight_only" and activation_bits is not None:
            problems.append(f"activation_bits: got {activation_bits}, expected null where mode is weight_only")
        if mode == "dynamic" and activation_bits not in (None, 8):
            problems.append(f"activation_bits: got {activation_bits}, expected 8 where mode is dynamic")
        if calibration not in ("mse", "percentile", "minmax"):
            problems.append(f"calibration: got {calibration!r}, expected mse, percentile or minmax")
        if not 50 < percentile <= 100:
            problems.append(f"percentile: got {percentile}, expected more than 50 and at most 100")
        if samples < 1:
            problems.append(f"samples: got {samples}, expected at least 1")
        if granularity not in ("per_channel", "per_tensor", "per_group"):
            problems.append(f"granularity: got {granularity!r}, expected per_channel, per_tensor or per_group")
        if group_size < 2:
            problems.append(f"group_size: got {group_size}, expected at least 2")
        if problems:
            raise RequestError(problems)
        self.width = bits
        self.mode = mode
        self.activation_width = None if mode == "weight_only" else 8 if activation_bits is None else activation_bits
        self.calibration: Literal["mse", "percentile", "minmax"] = calibration
        self.percentile = percentile
        self.samples = samples
        self.granularity: Literal["per_channel", "per_tensor", "per_group"] = granularity
        self.group_size = group_size
        self.symmetric = symmetric
        self.reduce_range = reduce_range

    def epochs(self, run: Run) -> int:
        """Those of any step for ``qat``; none otherwise, since ranges are read off the data."""
        return super().epochs(run) if self.mode == "qat" else 0

    def prepare(self, run: Run, fit: Fit) -> None:
        """For ``qat``, puts a network that rounds in the place of the model."""
        if self.mode == "qat":
            run.model = self._rounding(run)
            run.model.requires_grad_learned()

    def finish(self, run: Run, fit: Fit) -> None:
        """Calibrates on training samples, unless that is done, and converts the model to a graph of integers."""
        import torch

        from bigopt_plugins.compression.quantization._convert import as_integers
        from bigopt_plugins.compression.quantization._network import QuantizedNetwork

        network = run.model if isinstance(run.model, QuantizedNetwork) else self._rounding(run)
        example = run.data.train.take(torch.arange(min(3, len(run.data.train))))
        graph, rows = as_integers(network, example)
        run.report.table("quantization", rows)
        run.report.value("quantized_layers", [row["layer"] for row in rows])
        narrow = {int(row["stored_bits"]): int(row["bits"]) for row in rows if row["stored_bits"] != row["bits"]}
        if narrow:
            entropy, stored = (sum(int(row[name]) for row in rows) for name in ("entropy_bytes", "bytes"))
            run.report.note(
                f"{', '.join(map(str, narrow.values()))}-bit weights are stored in {', '.join(map(str, narrow))} bits, "
                f"{stored:,} bytes; an entropy coder would need {entropy:,}"
            )
        run.model = graph

    def bits(self) -> tuple[int, int]:
        """Widths of weights and activations."""
        return self.width, FLOAT if self.activation_width is None else self.activation_width

    def _rounding(self, run: Run) -> QuantizedNetwork:
        """The model, calibrated, with everything that stays in float named."""
        import torch

        from bigopt_plugins.compression._weights import network, tell_left
        from bigopt_plugins.compression.quantization._build import build

        generator = torch.Generator().manual_seed(run.seed)
        index = torch.randperm(len(run.data.train), generator=generator)[: self.samples]
        model = network(run, "quantization")
        samples = run.data.train.take(index).to(next(model.parameters()).device)
        recipe = self._recipe(run)
        built, notes = build(model, samples, recipe, run.seed, run.options.ignore)
        for note in notes:
            run.report.note(note)
        ignored = {name: reason for name, reason in built.plan.left.items() if "ignore" in reason}
        for name, reason in ignored.items():
            run.report.note(f"{name} stays in float: {reason}")
        tell_left(run, {name: reason for name, reason in built.plan.left.items() if name not in ignored})
        if not built.plan.layers:
            raise RequestError("quantization: the model has no layer whose weight could be rounded")
        return built

    def _recipe(self, run: Run) -> Recipe:
        from bigopt_plugins.compression.quantization._build import Recipe
        from bigopt_plugins.compression.quantization._processor import saturates

        reduced = saturates() if self.reduce_range is None else self.reduce_range
        if reduced and self.width == 8 and self.activation_width is not None:
            run.report.note("weights use 7 bits of 8, since products saturate on this processor")
        return Recipe(
            bits=self.width,
            activation_bits=self.activation_width,
            dynamic=self.mode == "dynamic",
            granularity=self.granularity,
            group_size=self.group_size,
            symmetric=self.symmetric,
            reduce_range=reduced,
            calibration=self.calibration,
            percentile=self.percentile,
            keep_norms=self.mode == "qat" and self.granularity != "per_tensor",
        )
