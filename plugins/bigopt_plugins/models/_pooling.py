"""Text classifiers that judge by the mean of their tokens, as sentence encoders are trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn


class MeanPooled(nn.Module):
    """A transformers encoder, the mean of its outputs over the tokens that are no padding, dropout, a linear layer.

    Sentence encoders are trained with this mean (Reimers and Gurevych 2019, arXiv:1908.10084); what a text classifier
    of transformers makes of the first token alone was not trained in them.

    Args:
        classifier: text classifier of transformers; its encoder is used, its pooler and head are not.
        num_classes: outputs.
    """

    def __init__(self, classifier: Any, num_classes: int) -> None:
        super().__init__()
        self.config = classifier.config
        self.prefix = str(classifier.base_model_prefix)
        encoder = getattr(classifier, self.prefix)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        self.add_module(self.prefix, encoder)
        self.dropout = nn.Dropout(_dropout(self.config))
        self.classifier = nn.Linear(int(self.config.hidden_size), num_classes)
        nn.init.normal_(self.classifier.weight, std=float(getattr(self.config, "initializer_range", 0.02)))
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits ``(N, K)`` of token ids ``(N, L)``; ``attention_mask`` ``(N, L)`` is 1 where a token is no padding."""
        encoder = getattr(self, self.prefix)
        tokens: Tensor = encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        if attention_mask is None:
            mean = tokens.mean(1)
        else:
            weight = attention_mask.to(tokens.dtype).unsqueeze(2)
            mean = (tokens * weight).sum(1) / weight.sum(1).clamp_min(1)
        logits: Tensor = self.classifier(self.dropout(mean))
        return logits


def says_mean(folder: Path) -> bool:
    """Whether a folder of sentence-transformers says that its encoder was trained with the mean of its tokens."""
    for module in _json(folder / "modules.json", list):
        if isinstance(module, Mapping) and str(module.get("type", "")).endswith("Pooling"):
            settings = _json(folder / str(module.get("path", "")) / "config.json", dict)
            return bool(settings.get("pooling_mode_mean_tokens")) or settings.get("pooling_mode") == "mean"
    return False


def _json(path: Path, kind: type) -> Any:
    """What a JSON file holds, if it is of this kind; else an empty one of it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind()
    return value if isinstance(value, kind) else kind()


def _dropout(config: Any) -> float:
    """The share that the architecture drops before its own head, whatever it calls it."""
    for name in ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "dropout"):
        value = getattr(config, name, None)
        if isinstance(value, float):
            return value
    return 0.0
