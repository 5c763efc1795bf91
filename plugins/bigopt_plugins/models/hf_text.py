"""Text classifiers of the transformers library."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.models._common import at_least, refuse
from bigopt_plugins.models._transformers import from_config, from_folder, try_out

FAMILY = "AutoModelForSequenceClassification"
SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
"""BERT-tiny with more heads; used where the architecture has such settings."""

TOKENS = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None}
"""Padding as the datasets have it; the architectures' own numbers may lie outside of a small vocabulary."""

SHORTEST = 64
"""Positions that are there at least, for texts longer than the training data's."""


def hf_text(
    *,
    vocab_size: int,
    num_classes: int,
    in_features: int = SHORTEST,
    model_type: str = "bert",
    config: dict[str, Any] | None = None,
    pretrained: str | None = None,
) -> nn.Module:
    """Any text classifier of transformers: a small BERT by default (Devlin et al. 2019).

    Made from a configuration, or loaded from a local folder; nothing is downloaded, no code from the folder is run.
    Takes token ids ``(N, L)``; padding is masked.

    Args:
        vocab_size: number of tokens, from the data.
        num_classes: classes or regression targets, from the data.
        in_features: length of the texts in tokens, from the data.
        model_type: architecture, as transformers calls it (``bert``, ``distilbert``, ``roberta``, …).
        config: settings of the architecture, such as ``{hidden_size: 64}``.
        pretrained: folder that ``save_pretrained`` wrote; then ``model_type`` and ``config`` come from there.

    Raises:
        RequestError: an unknown architecture or setting, a folder that cannot be loaded, or texts it cannot take.
    """
    refuse(at_least(1, vocab_size=vocab_size, num_classes=num_classes, in_features=in_features))
    if pretrained is not None:
        if config:
            raise RequestError("config: got settings beside pretrained, whose folder has its own; set one of the two")
        model = from_folder(FAMILY, pretrained, num_classes)
        _check_vocabulary(model, vocab_size)
    else:
        # A few positions more than tokens: RoBERTa counts from behind its padding token.
        positions = {"max_position_embeddings": max(SHORTEST, in_features + 2)}
        data = {"vocab_size": vocab_size, "num_labels": num_classes}
        model = from_config(FAMILY, model_type, {**SMALL, **positions, **TOKENS}, config or {}, data)
    try_out(model, torch.full((2, in_features), vocab_size - 1), pretrained or model_type)
    return model


def _check_vocabulary(model: Any, vocab_size: int) -> None:
    known = model.config.vocab_size
    if vocab_size > known:
        raise RequestError(
            f"pretrained: the model knows {known} tokens, the data's tokenizer has {vocab_size}; "
            "give the dataset the tokenizer of the same folder"
        )


hf_text.kinds = ("text",)  # type: ignore[attr-defined]
hf_text.min_size = 1  # type: ignore[attr-defined]
