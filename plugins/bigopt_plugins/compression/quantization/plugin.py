"""Quantization of weights and activations to integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part, State
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression.quantization._mixed import Mixed, strength_of, width_of

if TYPE_CHECKING:
    from torch import Tensor

    from bigopt_plugins.compression.quantization._build import Recipe
    from bigopt_plugins.compression.quantization._network import QuantizedNetwork

FLOAT = 32
WIDTHS = (8, 7, 6, 5, 4, 3, 2)


class Quantization(Part):
    """Weights of 2 to 8 bits, activations in float or of 2 to 8 bits, as ONNX Runtime's integer kernels want them.

    ``w ≈ s · (q − z)`` with integers ``q`` (Jacob et al. 2018, arXiv:1712.05877). Weights of convolutions, linear
    layers and embeddings are rounded; so are the activations that convolutions and linear layers read, and residual
    additions, means, poolings and joins between them. Batch norm is folded. Modes:

    - ``static``: fixed ranges of activations, seen on training samples. QLinearConv, QLinearAdd, QGemm.
    - ``dynamic``: 8-bit activations over the range of each batch, so that answers depend a little on what shares a
      batch. ConvInteger, MatMulInteger.
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
        equalise: first give each channel the same range of weights in the layers before and behind it (cross-layer
            equalisation, Nagel et al. 2019, arXiv:1906.04721); for ``per_tensor``, above all with depthwise layers.
            Folds batch norms, in ``qat`` as well.
        bias_correction: afterwards move biases so that every layer's mean output on training samples is that of the
            float model (the same paper, section 4.2).
        smoothquant: α of SmoothQuant (Xiao et al. 2023, arXiv:2211.10438): how much of the range of what layer norms
            give is moved into the linear layers behind them, in [0, 1]; null for none.
        rounding: ``nearest``, or ``gptq`` (Frantar et al. 2023, arXiv:2210.17323): column by column, each making up for
            the errors of the ones before it on training samples.
        mixed: choose the bits of each layer among ``bits`` within ``max_bytes`` and ``max_drop`` from a sensitivity
            scan of each layer's weight alone, such as ``{bits: [8, 4], max_bytes: 20000}``; ``bits`` above is then
            not used.
        reduce_range: 7-bit integers for 8-bit weights that meet 8-bit activations, for processors whose products
            saturate at 16 bits (x86 without VNNI); null asks the processor.

    Raises:
        RequestError: an argument is out of range.
    """

    leaves: ClassVar[State] = "frozen"
    space: ClassVar[dict[str, str]] = {"bits": "choice(4,6,8)", "calibration": "choice(mse,percentile,minmax)"}

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
        equalise: bool = False,
        bias_correction: bool = False,
        smoothquant: float | None = None,
        rounding: Literal["nearest", "gptq"] = "nearest",
        mixed: Mixed | None = None,
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
        if smoothquant is not None and not 0 <= smoothquant <= 1:
            problems.append(f"smoothquant: got {smoothquant}, expected null or a number in [0, 1]")
        if rounding not in ("nearest", "gptq"):
            problems.append(f"rounding: got {rounding!r}, expected nearest or gptq")
        if mode == "qat" and rounding == "gptq":
            problems.append("rounding: got 'gptq', expected nearest where mode is qat, which trains the weights")
        if mode == "qat" and bias_correction:
            problems.append("bias_correction: got true, expected false where mode is qat, which trains the biases")
        problems += mixed.problems() if mixed is not None else []
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
        self.equalise = equalise
        self.bias_correction = bias_correction
        self.smoothquant = smoothquant
        self.rounding: Literal["nearest", "gptq"] = rounding
        self.mixed = mixed
        scanned = sorted(set(WIDTHS if mixed is None else mixed.bits), reverse=True)
        self.strengths = tuple(strength_of(width) for width in scanned)  # type: ignore[misc]
        self._widths: dict[str, int] = {}

    def needs_scan(self) -> bool:
        """Whether the widths come from a scan."""
        return self.mixed is not None

    def layers(self, run: Run) -> Sequence[str]:
        """Layers whose weights can be rounded."""
        from bigopt_plugins.compression._weights import network
        from bigopt_plugins.compression.quantization._scan import plan_of

        return list(plan_of(network(run, "quantization"), self._samples(run), run.options.ignore).layers)

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Rounds the weight of one layer (or all) in place of the model, for a scan; the share is one of 32 bits."""
        from bigopt_plugins.compression._weights import network
        from bigopt_plugins.compression.quantization._scan import rounded_alone

        model, width = network(run, "quantization"), width_of(strength)
        recipe, samples = self._recipe(), self._samples(run)
        run.model = rounded_alone(model, samples, recipe, run.seed, only, width, run.options.ignore)

    def scanned(self, run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
        """Chooses the bits of each layer."""
        from bigopt_plugins.compression._weights import network
        from bigopt_plugins.compression.quantization._scan import choose, plan_of

        if self.mixed is None:
            return
        model = network(run, "quantization")
        plan = plan_of(model, self._samples(run), run.options.ignore)
        chosen, facts = choose(model, plan, rows, self._recipe(), self.mixed)
        self._widths = chosen.bits
        run.report.table("mixed_precision", facts)
        run.report.value("mixed_precision", {"bits": chosen.bits, "bytes": chosen.bytes, "estimated_drop": chosen.loss})

    def epochs(self, run: Run) -> int:
        """Those of any step for ``qat``; none otherwise, since ranges are read off the data."""
        return super().epochs(run) if self.mode == "qat" else 0

    def prepare(self, run: Run, fit: Fit) -> None:
        """For ``qat``, puts a network that rounds in the place of the model."""
        if self.mode == "qat":
            network = self._rounding(run)
            network.requires_grad_learned()
            run.model = network

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
        width = self.width if self.mixed is None else max(self.mixed.bits)
        return width, FLOAT if self.activation_width is None else self.activation_width

    def _rounding(self, run: Run) -> QuantizedNetwork:
        """The model, calibrated, with everything that stays in float named."""
        from bigopt_plugins.compression._weights import network, tell_left
        from bigopt_plugins.compression.quantization._build import build
        from bigopt_plugins.compression.quantization._options import Options, after, before

        model, samples, recipe = network(run, "quantization"), self._samples(run), self._recipe()
        options = Options(self.equalise, self.smoothquant, self.rounding, self.bias_correction)
        notes = before(model, samples, options)
        built, more = build(model, samples, recipe, run.seed, run.options.ignore)
        widths = recipe.widths.values() or [recipe.bits]
        if recipe.reduce_range and recipe.activation_bits is not None and 8 in widths:
            notes.append("weights use 7 bits of 8, since products saturate on this processor")
        for note in [*notes, *more, *after(built, samples, options)]:
            run.report.note(note)
        ignored = {name: reason for name, reason in built.plan.left.items() if "ignore" in reason}
        for name, reason in ignored.items():
            run.report.note(f"{name} stays in float: {reason}")
        tell_left(run, {name: reason for name, reason in built.plan.left.items() if name not in ignored})
        if not built.plan.layers:
            raise RequestError("quantization: the model has no layer whose weight could be rounded")
        return built

    def _samples(self, run: Run) -> Tensor:
        """Training samples, on the model's device."""
        import torch

        generator = torch.Generator().manual_seed(run.seed)
        index = torch.randperm(len(run.data.train), generator=generator)[: self.samples]
        return run.data.train.take(index).to(next(run.model.parameters()).device)

    def _recipe(self) -> Recipe:
        from bigopt_plugins.compression.quantization._build import Recipe
        from bigopt_plugins.compression.quantization._processor import saturates

        reduced = saturates() if self.reduce_range is None else self.reduce_range
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
            widths=self._widths,
            keep_norms=self.mode == "qat" and self.granularity != "per_tensor",
        )
