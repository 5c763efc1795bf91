"""Feature concatenation: outputs of several layers of a pretrained net together feed a new head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer._concatenated import Concatenated, make_head, matching
from bigopt_plugins.transfer._features import Held, cacheable, train_head_only, whole_again
from bigopt_plugins.transfer._layers import freeze_all_but, head_name, seeded, start_from, unfreeze

HEAD = "net.head"


class FeatureConcatenation(Part):
    """Classifies by the pooled outputs of several named layers at once.

    Features of early layers help where the target is unlike the source, and those of all layers together beat the last
    one's (hypercolumns, Hariharan et al. 2015, arXiv:1411.5752; Head2Toe, Evci et al. 2022, arXiv:2201.03529). The
    net is frozen unless asked otherwise; its features are then computed once and standardised, so that an epoch costs
    only the head. The exported model holds net, pooling and head.

    Args:
        layers: names of modules below ``net``, or patterns in which ``*`` stands for one part of a name:
            ``[features.relu3_3, features.relu5_3]``, ``[stages.*]``.
        source: where the net's weights come from: a dataset's name, a run folder, a mapping with ``dataset``,
            ``model`` and ``lr``, or a list of these, of which LogME chooses. Null keeps the weights that
            it was built with.
        source_epochs: passes over the source; null means ``trainer.max_epochs``.
        head: ``linear``; ``mlp`` with hidden layers; ``conv``: a 3×3 convolution over the concatenated maps.
        hidden: units of the hidden layers (mlp), channels of the convolution (conv).
        pool: cells along each side to which maps are averaged (linear and mlp; 1 is the global mean).
        freeze: train the head alone; false trains the net too.
        lr_scale: learning rate of the net as a share of the head's, where it is trained.
        recover_extractor: whether recovery after a compression step trains a frozen net too.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {"head": "choice(linear,mlp)", "freeze": "choice(true,false)"}

    def __init__(
        self,
        layers: list[str],
        source: str | Mapping[str, Any] | list[Any] | None = None,
        source_epochs: int | None = None,
        head: Literal["linear", "mlp", "conv"] = "linear",
        hidden: tuple[int, ...] = (128,),
        pool: int = 1,
        freeze: bool = True,
        lr_scale: float = 0.1,
        recover_extractor: bool = False,
    ) -> None:
        problems = []
        if not layers:
            problems.append("layers: got [], expected names or patterns of layers")
        if source_epochs is not None and source_epochs < 1:
            problems.append(f"source_epochs: got {source_epochs}, expected at least 1")
        if any(units < 1 for units in hidden) or (head != "linear" and not hidden):
            problems.append(f"hidden: got {list(hidden)}, expected positive numbers of units")
        if pool < 1:
            problems.append(f"pool: got {pool}, expected at least 1")
        if not 0 < lr_scale <= 1:
            problems.append(f"lr_scale: got {lr_scale}, expected a share in (0, 1]")
        if problems:
            raise RequestError(problems)
        self.patterns = list(layers)
        self.source = source
        self.source_epochs = source_epochs
        self.head = head
        self.hidden = tuple(hidden)
        self.pool = pool
        self.freeze = freeze
        self.lr_scale = lr_scale
        self.recover_extractor = recover_extractor
        self._held: Held | None = None

    def prepare(self, run: Run, fit: Fit) -> None:
        """Loads or trains the net, gives it the new head, and computes the features."""
        if self.source is not None:
            start_from(run, fit, self.source, self.source_epochs)
        model = run.model
        if not isinstance(model, Network):
            raise RequestError(f"feature_concatenation needs a bigopt network, got {type(model).__name__}")
        entry = self._entry(run, model)
        with seeded(run, "head"):
            self.replay(model, entry)
        model.changes.append(entry)
        run.report.note(f"feature_concatenation: {', '.join(entry['layers'])} give {entry['inputs']} features")
        if not self.freeze:
            return
        freeze_all_but(model, HEAD)
        if cacheable(run, self):
            self._held = train_head_only(run, HEAD)

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A net that is trained learns at ``lr_scale`` of the head's rate."""
        if self.freeze or self.lr_scale == 1.0 or not isinstance(run.model, Network):
            return groups
        below = {id(p) for name, p in run.model.named_parameters() if not name.startswith(f"{HEAD}.")}
        split = []
        for group in groups:
            for inside, share in ((False, 1.0), (True, self.lr_scale)):
                params = [p for p in group["params"] if (id(p) in below) is inside]
                split.append({**group, "params": params, "lr": group["lr"] * share})
        return split

    def finish(self, run: Run, fit: Fit) -> None:
        """Puts net and head together."""
        if self._held is not None:
            whole_again(run, self._held)
            self._held = None
        if self.freeze and self.recover_extractor:
            unfreeze(run.model)

    @staticmethod
    def replay(model: nn.Module, entry: Mapping[str, Any]) -> None:
        """Gives a plain network the recorded head.

        Raises:
            RequestError: the entry does not fit the model.
        """
        try:
            assert isinstance(model, Network)
            model.set_submodule(str(entry["last"]), nn.Identity())
            head = make_head(
                entry["head"], int(entry["inputs"]), [int(h) for h in entry["hidden"]], int(entry["classes"])
            )
            matching(model.net, entry["layers"])
            model.net = Concatenated(model.net, entry["layers"], int(entry["side"]), bool(entry["flat"]), head)
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, RequestError):
            raise RequestError(f"feature_concatenation: the change {dict(entry)} does not fit this model") from None

    def _entry(self, run: Run, model: Network) -> dict[str, Any]:
        """What is to be done, as plain values: layers, cells, and the number of features."""
        names = matching(model.net, self.patterns)
        shapes = _shapes(run, model, names)
        maps = [shape for shape in shapes.values() if len(shape) == 4]
        if self.head == "conv" and len(maps) < len(shapes):
            flat = [f"{name} {list(shape[1:])}" for name, shape in shapes.items() if len(shape) != 4]
            raise RequestError(
                f"transfer.head: conv needs maps (channels, height, width), but {', '.join(flat)} are none"
            )
        side = min(min(shape[2:]) for shape in maps) if self.head == "conv" else self.pool
        too_small = [name for name, shape in shapes.items() if len(shape) == 4 and min(shape[2:]) < side]
        if too_small:
            raise RequestError(f"transfer.pool: got {self.pool}, but {', '.join(too_small)} have smaller maps")
        cells = 1 if self.head == "conv" else side * side
        widths = [shape[1] * cells if len(shape) == 4 else shape[-1] for shape in shapes.values()]
        return {
            "op": "concatenate",
            "plugin": "feature_concatenation",
            "kind": "transfer",
            "layers": names,
            "last": head_name(model),
            "head": self.head,
            "inputs": sum(widths),
            "hidden": list(self.hidden) if self.head != "linear" else [],
            "classes": run.task.num_classes,
            "side": side,
            "flat": self.head != "conv",
        }


def _shapes(run: Run, model: Network, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the layers' outputs on two samples.

    Raises:
        RequestError: a layer that gives no tensor ``(N, F)``, ``(N, L, H)`` or ``(N, C, H, W)``.
    """
    training = model.training
    with torch.no_grad():
        seen = run.forward(run.data.train.take(torch.arange(2)), [f"net.{name}" for name in names], model.eval()).taps
    model.train(training)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        out = seen.get(f"net.{name}")
        if not isinstance(out, Tensor) or out.ndim not in (2, 3, 4):
            got = "nothing" if out is None else f"{type(out).__name__} {list(getattr(out, 'shape', ()))}"
            raise RequestError(f"transfer.layers: {name} gives {got}, expected maps, tokens or vectors")
        shapes[name] = tuple(out.shape)
    return shapes
