"""Durability and trust, once: what bigopt writes or loads goes through here. Importing it never imports torch."""

from __future__ import annotations

from bigopt.store.atomic import plain, read_json, reap, write_atomic, write_json
from bigopt.store.entries import Store
from bigopt.store.generations import Generations
from bigopt.store.journal import Journal
from bigopt.store.locks import lock, machine_lock
from bigopt.store.manifest import read_manifest, sha256, verify, write_manifest
from bigopt.store.paths import inside
from bigopt.store.process import Owner, me
from bigopt.store.redaction import MASK, redact, register_secret, register_secrets, secret_key
from bigopt.store.state import load_state, save_state
from bigopt.store.tensors import load_tensors, load_weights, save_tensors

__all__ = [
    "MASK",
    "Generations",
    "Journal",
    "Owner",
    "Store",
    "inside",
    "load_state",
    "load_tensors",
    "load_weights",
    "lock",
    "machine_lock",
    "me",
    "plain",
    "read_json",
    "read_manifest",
    "reap",
    "redact",
    "register_secret",
    "register_secrets",
    "save_state",
    "save_tensors",
    "secret_key",
    "sha256",
    "verify",
    "write_atomic",
    "write_json",
    "write_manifest",
]
