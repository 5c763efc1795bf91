"""Texts as token ids: a pretrained tokenizer from a folder, or a small one trained on the training split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigopt.data.files import need_folder
from bigopt.data.pretrained import pretrained_folder
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class Tokens:
    """Encoded texts.

    Attributes:
        ids: ``(N, L)`` int64, padded at the end; a text of any length starts as the tokenizer starts it ([CLS] …).
        vocab_size: number of tokens.
        pad_id: filler.
        cut: texts that were longer than allowed.
        tokenizer: what a user of the model needs to encode further texts: ``{"folder": …}`` or ``{"json": …}``.
    """

    ids: Tensor
    vocab_size: int
    pad_id: int
    cut: int
    tokenizer: dict[str, str]


def encode(
    texts: Sequence[str],
    train: Sequence[int],
    *,
    folder: str | None,
    max_length: int,
    vocab_size: int = 8000,
    key: str = "dataset.tokenizer",
) -> Tokens:
    """Token ids of all texts.

    Args:
        texts: all splits' texts.
        train: positions of the training texts: a small tokenizer is trained on these alone, and they set the length
            ``L``, their longest in tokens rounded up to a multiple of 8, at most ``max_length``.
        folder: local folder of a pretrained tokenizer, or an installed package that holds one; None trains a small one.
        max_length: longer texts are cut, tokens.
        vocab_size: of a small tokenizer, at most.
        key: the configuration's key of ``folder``, for messages.

    Raises:
        RequestError: no tokenizer in the folder, or an argument out of range.
    """
    if max_length < 4:
        raise RequestError(f"dataset.max_length: got {max_length}, expected at least 4 tokens")
    if folder is not None:
        rows, size, pad, known = _pretrained(texts, folder, key)
    else:
        rows, size, pad, known = _small(texts, [texts[i] for i in train], vocab_size)
    longest = max(len(rows[i]) for i in train)
    length = min(max_length, -(-longest // 8) * 8)
    ids, cut = _pad(rows, length, pad)
    return Tokens(ids, size, pad, cut, known)


def _pad(rows: Sequence[Sequence[int]], length: int, pad: int) -> tuple[Tensor, int]:
    """One tensor; a cut text keeps its last token, which closes it ([SEP])."""
    import torch

    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    for i, row in enumerate(rows):
        kept = row if len(row) <= length else [*row[: length - 1], row[-1]]
        ids[i, : len(kept)] = torch.tensor(kept, dtype=torch.int64)
    return ids, sum(len(row) > length for row in rows)


def _pretrained(texts: Sequence[str], folder: str, key: str) -> tuple[list[list[int]], int, int, dict[str, str]]:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    place = need_folder(pretrained_folder(folder), key)
    logging.set_verbosity_error()  # it warns of every text longer than the model's limit; they are cut below
    try:
        # Never from the network, and never code that lies in the folder.
        tokenizer: Any = AutoTokenizer.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises anything on damaged files
        line = " ".join(str(error).split())[:200]
        raise RequestError(f"{key}: {place} holds no tokenizer that can be read ({line})") from error
    rows = tokenizer(list(texts), add_special_tokens=True, truncation=False)["input_ids"]
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    return rows, len(tokenizer), int(pad), {"folder": str(place)}


def _small(
    texts: Sequence[str], training: Sequence[str], vocab_size: int
) -> tuple[list[list[int]], int, int, dict[str, str]]:
    """Byte-pair encoding of lower-case words, [CLS] … [SEP] around a text as BERT has it.

    Not WordPiece: its trainer numbers the tokens inside words in the order of a randomly seeded hash map, so that the
    same texts give another vocabulary in each process. Here a word's beginning is marked by a character of its own.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    if vocab_size < 100:
        raise RequestError(f"dataset.vocab_size: got {vocab_size}, expected at least 100 tokens")
    tokenizer: Any = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=_SPECIAL, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(training, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    text = json.dumps(json.loads(tokenizer.to_str()), sort_keys=True)
    return rows, tokenizer.get_vocab_size(), tokenizer.token_to_id("[PAD]"), {"json": text}
