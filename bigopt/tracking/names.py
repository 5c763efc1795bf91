"""Names and values as MLflow can take them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from bigopt.store import plain, redact

LONGEST_KEY = 250
LONGEST_PARAM = 6000
LONGEST_TAG = 8000


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested configuration as MLflow parameters: dotted names, secrets masked, lists as JSON."""
    flat: dict[str, str] = {}
    _flatten(redact(dict(config)), "", flat)
    return flat


def tags_of(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags with secrets masked and lengths kept."""
    return {key_of(str(name)): shortened(_shown(value), LONGEST_TAG) for name, value in redact(dict(tags)).items()}


def metrics_of(prefix: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics under a prefix; those that are None or not finite are left out."""
    found = {}
    for name, value in metrics.items():
        number = plain(value)
        if isinstance(number, (int, float)):
            found[key_of(f"{prefix}/{name}")] = float(number)
    return found


def key_of(name: str) -> str:
    """A name that MLflow accepts as a key, the same for the same input."""
    allowed = re.sub(r"[^\w./ :-]", "_", name, flags=re.ASCII)
    parts = [part if part.strip(".") else "_" for part in allowed.split("/")]
    key = "/".join(parts)
    if len(key) <= LONGEST_KEY:
        return key
    return key[: LONGEST_KEY - 11] + "-" + hashlib.sha256(name.encode()).hexdigest()[:10]


def shortened(text: str, limit: int) -> str:
    """The text, cut with an ellipsis if it is longer than MLflow keeps."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _flatten(value: Any, name: str, flat: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            _flatten(item, f"{name}.{key}" if name else str(key), flat)
    elif name:
        flat[key_of(name)] = shortened(_shown(value), LONGEST_PARAM)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return json.dumps(plain(value), ensure_ascii=False)
    return str(value)
