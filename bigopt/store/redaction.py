"""The one place that masks secrets on the way to logs, MLflow, reports and error messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 4  # characters; masking shorter values would turn every text into asterisks

T = TypeVar("T")

_secrets: set[str] = set()

_SECRET_WORDS = {"token", "password", "passwd", "passphrase", "pwd", "secret", "credential", "credentials", "apikey"}
_KEY_WORDS = {"key", "api", "access", "private", "secret", "auth", "account", "signing", "encryption"}
_TEXT_TOKENS = {"pad", "unk", "cls", "sep", "mask", "bos", "eos", "special"}  # pad_token is no secret
_REFERENCE = re.compile(r"\$\{oc\.env:\s*([^,}\s]+)\s*(,[^}]*)?\}")
_USER = re.compile(r"(://)(?:[^/\s:@'\"]*:(?!\d*[/?#])[^\s'\"]*@|[^/\s?#'\"]*@)")  # also with unencoded / and @
_NAME = re.compile(r"(?<![\w.\-])([\w.\-]+)(=|:(?!//)\s*)")
_VALUE = re.compile(r"'[^']*'|\"[^\"]*\"|\$\{[^}]*\}|[^\s&,;'\"}\])]+")
_QUOTED_PAIR = re.compile(r"""(['"])([\w.\-]+)\1(\s*[:=]\s*)('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\w.\-]+)""")
_KNOWN = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w\-]{16,}|hf_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w\-]{10,})"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/\-]{8,}=*")


def register_secret(value: str | None) -> bool:
    """Makes a value masked wherever it appears from now on, also percent-encoded or escaped as in JSON.

    Args:
        value: the secret itself, such as the value of an environment variable that the configuration refers to.

    Returns:
        False when the value is too short to be masked inside other text (fewer than four characters).
    """
    if value is None or len(value) < SHORTEST:
        return False
    escaped = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    _secrets.update({value, quote(value), quote(value, safe=""), quote_plus(value), *escaped})
    return True


def register_secrets(value: Any, key: str = "") -> None:
    """Registers every secret in a configuration: texts under keys that look secret, passwords inside URIs."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            register_secrets(item, str(name) if secret_key(str(name)) or not secret_key(key) else key)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            register_secrets(item, key)
    elif isinstance(value, str):
        for found in _USER.finditer(value):
            register_secret(found[0].partition("://")[2][:-1].partition(":")[2])
        if secret_key(key) and not _REFERENCE.fullmatch(value):
            register_secret(value)


def redact(value: T) -> T:
    """The value with every secret in it masked: the same type for texts, paths, mappings, lists and tuples.

    Masked are registered secrets wherever they appear, credentials inside URIs, values under keys that look secret
    (also ``name=value`` inside texts), and well-known forms of access tokens. References such as ``${oc.env:NAME}``
    stay: they are not the secret.
    """
    return _redact(value)  # type: ignore[no-any-return]


def secret_key(name: str) -> bool:
    """Whether a key looks as if its value were a secret: ``api_key``, ``db.password``, ``githubToken``."""
    last = re.split(r"[./\[\]]", name.strip("+~ '\""))[-1] or name
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", last)]
    if not words:
        return False
    if words[-1] == "token" and words[0] in _TEXT_TOKENS:
        return False
    if _SECRET_WORDS & set(words):
        return words[-1] not in {"file", "path", "name", "env", "length", "count", "id", "ids"}
    return words[-1] == "key" and (len(words) == 1 or bool(_KEY_WORDS & set(words[:-1])))


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_redact(k): _hidden(v) if secret_key(str(k)) else _redact(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_redact(item) for item in value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_redact(item) for item in value)
    if isinstance(value, bytes):
        return _text(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if isinstance(value, PurePath):
        return type(value)(_text(str(value)))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and str(value) in _secrets:
        return MASK
    return value


def _hidden(value: Any) -> Any:
    """What stands for a value under a secret key: empty ones and references stay, they give nothing away."""
    if value is None or isinstance(value, bool) or value == "":
        return value
    if isinstance(value, Mapping):
        return {_redact(k): _hidden(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_hidden(item) for item in value)
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        return _reference(value)
    return MASK


def _text(text: str) -> str:
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _USER.sub(rf"\g<1>{MASK}@", text)
    text = _QUOTED_PAIR.sub(_quoted_pair, text)
    text = _pairs(text)
    text = _BEARER.sub(rf"\g<1>{MASK}", text)
    return _KNOWN.sub(MASK, text)


def _pairs(text: str) -> str:
    """Masks the value of every ``name=value`` and ``name: value`` whose name looks secret."""
    done: list[str] = []
    position = 0
    while found := _NAME.search(text, position):
        done.append(text[position : found.end()])
        position = found.end()
        name, sign = found.groups()
        # "unknown key: ratio" is prose; "key=…" and "password: …" are not
        prose = sign != "=" and name.split(".")[-1].lower() in {"key", "token", "secret"}
        if not prose and secret_key(name) and (value := _VALUE.match(text, position)):
            done.append(_masked(value[0]))
            position = value.end()
    return "".join((*done, text[position:]))


def _quoted_pair(found: re.Match[str]) -> str:
    mark, name, sign, value = found.groups()
    if not secret_key(name):
        return found[0]
    inner = value[1:-1] if value[:1] in "'\"" else value
    quoted = value[0] if value[:1] in "'\"" else ""
    return f"{mark}{name}{mark}{sign}{quoted}{_masked(inner)}{quoted}"


def _masked(value: str) -> str:
    bare = value.strip("'\"")
    if bare.lower() in {"", "null", "none", "true", "false", MASK}:
        return value
    return _reference(bare) if _REFERENCE.fullmatch(bare) else MASK


def _reference(text: str) -> str:
    """The reference without its default, which may be the secret."""
    return _REFERENCE.sub(lambda m: f"${{oc.env:{m[1]}{',' + MASK if m[2] and _given(m[2]) else ''}}}", text)


def _given(default: str) -> bool:
    return default[1:].strip().lower() not in {"", "null", "none", "''", '""'}
