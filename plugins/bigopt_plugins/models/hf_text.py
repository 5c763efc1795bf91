"""Text classifiers of the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from bigopt.data.pretrained import pretrained_folder
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.models._common import at_least, choice, refuse
from bigopt_plugins.models._pooling import MeanPooled, says_mean
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
    pooling: Literal["own", "mean"] | None = None,
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
        pretrained: folder that ``save_pretrained`` wrote, or the name of an installed package that holds one; then
            ``model_type`` and ``config`` come from there. The dataset needs the same folder's tokenizer.
        pooling: what the head sees: ``own``, as the architecture has it (BERT: the first token), or ``mean`` of all
            tokens. Null takes the mean where the folder says that its encoder was trained so, as those of
            sentence-transformers do.

    Raises:
        RequestError: an unknown architecture or setting, a folder that cannot be loaded, or texts it cannot take.
    """
    refuse(at_least(1, vocab_size=vocab_size, num_classes=num_classes, in_features=in_features))
    refuse(choice("pooling", pooling, ("own", "mean", None)))
    if pretrained is not None:
        if config:
            raise RequestError("config: got settings beside pretrained, whose folder has its own; set one of the two")
        folder = pretrained_folder(pretrained)
        model = from_folder(FAMILY, folder, num_classes)
        _check_vocabulary(model, Path(folder).expanduser(), vocab_size)
        mean = says_mean(Path(folder).expanduser()) if pooling is None else pooling == "mean"
    else:
        # A few positions more than tokens: RoBERTa counts from behind its padding token.
        positions = {"max_position_embeddings": max(SHORTEST, in_features + 2)}
        data = {"vocab_size": vocab_size, "num_labels": num_classes}
        model = from_config(FAMILY, model_type, {**SMALL, **positions, **TOKENS}, config or {}, data)
        mean = pooling == "mean"
    if mean:
        model = MeanPooled(model, num_classes)
    try_out(model, torch.full((2, in_features), vocab_size - 1), pretrained or model_type)
    return model


def _check_vocabulary(model: Any, folder: Path, vocab_size: int) -> None:
    """Refuses token ids of another tokenizer than the model was trained with, which would mean other words to it."""
    known = model.config.vocab_size
    if vocab_size > known:
        raise RequestError(
            f"pretrained: the model knows {known} tokens, the data's tokenizer has {vocab_size}; "
            "give the dataset the tokenizer of the same folder"
        )
    own = _tokens(folder / "tokenizer.json")
    if own is not None and own != vocab_size:
        raise RequestError(
            f"pretrained: the folder's tokenizer has {own} tokens, the data's {vocab_size}; "
            "set dataset.tokenizer to the same as model.pretrained"
        )


def _tokens(file: Path) -> int | None:
    """Number of tokens of a stored tokenizer; None where there is none that can be read."""
    from tokenizers import Tokenizer

    try:
        return int(Tokenizer.from_file(str(file)).get_vocab_size(with_added_tokens=True))
    except Exception:  # the library raises plain exceptions
        return None


hf_text.kinds = ("text",)  # type: ignore[attr-defined]
hf_text.min_size = 1  # type: ignore[attr-defined]
