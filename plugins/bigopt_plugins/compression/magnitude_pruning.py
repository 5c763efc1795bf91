"""Single weights, blocks of weights, or n of every m weights set to zero by their magnitude."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._held import KeepZeros, callbacks, held, hold, release, share_left
from bigopt_plugins.compression._patterns import best_blocks, block_scores, lamp, n_of_m, parse, spread
from bigopt_plugins.compression._weights import CONVOLUTIONS, network, tell_left, weighted

RATIO = 0.8


class MagnitudePruning(Part):
    """Sets the smallest weights of convolutions and linear layers to zero, and holds them there while it recovers.

    Magnitude pruning (Han et al. 2015, arXiv:1506.02626): weights ``w`` with the smallest ``|w|`` go. A block ``B`` is
    scored ``mean |w|`` (``l1``) or ``sqrt(mean w²)`` (``l2``); for single weights the two rank alike. ``n:m`` keeps
    the n largest of every m consecutive input channels, as sparse tensor cores want it (Mishra et al. 2021,
    arXiv:2104.08378). Gradual pruning is ``schedule.name=gradual`` (Zhu and Gupta 2017, arXiv:1710.01878).

    What this gives: fewer non-zeros and a file that compresses better. What it does not: the file itself, the MACs
    and the latency of dense kernels, which ONNX Runtime's are, stay as they were. ``channel_pruning`` removes.

    Args:
        ratio: share of the weights to set to zero, in [0, 1); null means 0.8, or what an n:m pattern says.
        norm: how a block is scored.
        ranking: ``local`` takes the share from every layer; ``global`` ranks the scores of all layers together, which
            cuts through layers whose weights are small as a whole; ``lamp`` does so after dividing each squared score
            by the sum of those that are not smaller in its layer (Lee et al. 2021, arXiv:2010.07611). An n:m pattern
            is local by its nature.
        pattern: ``unstructured``; ``n:m`` such as ``2:4``; or blocks of output × input channels such as ``4x1``
            (the weights of a convolution as a matrix: output channels × input channels · kernel).
        min_left: share of its weights that a layer keeps at least where layers are ranked together, so that none is
            cut through.

    Raises:
        RequestError: an argument is out of range, or ratio and n:m pattern disagree.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
    space: ClassVar[dict[str, str]] = {"ratio": "interval(0.3,0.98)"}

    def __init__(
        self,
        ratio: float | None = None,
        norm: Literal["l1", "l2"] = "l1",
        ranking: Literal["lamp", "global", "local"] = "lamp",
        pattern: str = "unstructured",
        min_left: float = 0.01,
    ) -> None:
        n_m, block = parse(pattern)
        problems = []
        if ratio is not None and not 0 <= ratio < 1:
            problems.append(f"ratio: got {ratio}, expected a share in [0, 1)")
        if norm not in ("l1", "l2"):
            problems.append(f"norm: got {norm!r}, expected l1 or l2")
        if ranking not in ("lamp", "global", "local"):
            problems.append(f"ranking: got {ranking!r}, expected lamp, global or local")
        if n_m is None and block is None:
            problems.append(f"pattern: got {pattern!r}, expected unstructured, n:m such as 2:4, or a block such as 4x1")
        if n_m is not None and ratio is not None and not math.isclose(ratio, 1 - n_m[0] / n_m[1]):
            problems.append(
                f"ratio: got {ratio}, but the pattern {pattern} says {1 - n_m[0] / n_m[1]:g}; leave it null"
            )
        if not 0 <= min_left < 1:
            problems.append(f"min_left: got {min_left}, expected a share in [0, 1)")
        if problems:
            raise RequestError(problems)
        self.ratio = ratio
        self.norm = norm
        self.ranking = ranking
        self.pattern = pattern
        self.min_left = min_left

    def strength(self) -> float:
        """The share that is asked for."""
        n_m, _ = parse(self.pattern)
        return 1 - n_m[0] / n_m[1] if n_m is not None else RATIO if self.ratio is None else self.ratio

    def layers(self, run: Run) -> Sequence[str]:
        """Convolutions and linear layers that are not ignored (those that fit the pattern)."""
        return list(self._layers(run)[0])

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Sets this share of what is not zero yet to zero.

        Under an n:m pattern, strengths that add up to s keep ``ceil(m · (1 - s))`` of every m weights.

        Raises:
            RequestError: ``strict`` and a layer cannot be handled.
        """
        model = network(run, "magnitude_pruning")
        layers, left = self._layers(run)
        tell_left(run, left)
        chosen = {name: layer.weight.detach() for name, layer in layers.items() if only in (None, name)}
        chosen = {name: weight for name, weight in chosen.items() if weight.any()}  # nothing to rank in a blank one
        n_m, block = parse(self.pattern)
        if n_m is not None:
            kept = {n: n_of_m(w, n_m[1], _n_left(model.get_submodule(n), n_m[1], strength)) for n, w in chosen.items()}
        else:
            assert block is not None
            together = self.ranking != "local"
            floor = self.min_left if together else 0.0
            scores = {name: self._scores(weight, block) for name, weight in chosen.items()}
            pools = [list(scores)] if together else [[name] for name in scores]
            best = {name: mask for pool in pools for name, mask in best_blocks(scores, pool, strength, floor).items()}
            kept = {name: spread(mask, block, chosen[name].shape) for name, mask in best.items()}
        hold(model, {f"{name}.weight": mask & (chosen[name] != 0) for name, mask in kept.items()})

    def _scores(self, weight: Tensor, block: tuple[int, int]) -> Tensor:
        scores = block_scores(weight, block, self.norm)
        return lamp(scores) if self.ranking == "lamp" else scores

    def callbacks(self, run: Run) -> list[Any]:
        """Holds the zeros in each fit."""
        return callbacks(run.model)

    def finish(self, run: Run, fit: Fit) -> None:
        """Leaves a plain model, whose zeros later steps hold as well, and says what became of size and speed."""
        model = network(run, "magnitude_pruning")
        masks = held(model)
        self._tell(run, masks)
        names = release(model)
        if names:
            run.parts.append(KeepZeros(names))

    def _layers(self, run: Run) -> tuple[dict[str, Any], dict[str, str]]:
        found, left = weighted(run, (*CONVOLUTIONS, nn.Linear))
        n_m, _ = parse(self.pattern)
        if n_m is None:
            return found, left
        for name, layer in list(found.items()):
            channels, m = layer.weight.shape[1], n_m[1]
            if channels % m:
                del found[name]
                left[name] = f"its {channels} input channels do not divide into groups of {m}"
        return found, left

    def _tell(self, run: Run, masks: Mapping[str, Tensor]) -> None:
        weights = {name: p.detach() for name, p in run.model.named_parameters() if name in masks}
        rows: list[dict[str, Any]] = []
        for name, w in weights.items():
            zero = int((w == 0).sum())
            rows.append({"layer": name, "weights": w.numel(), "zeros": zero, "sparsity": zero / w.numel()})
        total, zeros = sum(row["weights"] for row in rows), sum(row["zeros"] for row in rows)
        if not total:
            run.report.note("nothing was set to zero")
            return
        run.report.table("magnitude_pruning", rows)
        run.report.value("pattern", self.pattern)
        run.report.value("sparsity", zeros / total)
        run.report.value("nonzero_weights", total - zeros)
        run.report.value("weight_bytes", {"dense": 4 * total, "deflated": _deflated(weights.values())})
        run.report.value(
            "changes", {"nonzero": True, "bytes_zip": True, "bytes": False, "macs": False, "latency": False}
        )
        run.report.note(
            f"{zeros:,} of {total:,} weights are zero: non-zeros and compressed bytes change; the file, the MACs and "
            "the latency do not, since ONNX Runtime's kernels are dense"
        )


def _n_left(layer: nn.Module, m: int, strength: float) -> int:
    """How many of m weights stay."""
    return max(1, math.ceil(m * share_left(layer, strength) - 1e-6))


def _deflated(weights: Iterable[Tensor]) -> int:
    """Bytes of float32 weights, deflated."""
    packer = zlib.compressobj(9)
    size = sum(len(packer.compress(weight.cpu().float().contiguous().numpy().tobytes())) for weight in weights)
    return size + len(packer.flush())
