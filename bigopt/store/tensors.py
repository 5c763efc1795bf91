"""Tensors on disk, as safetensors; weights from elsewhere, without ever running what they may hold."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bigopt.store.atomic import write_atomic
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

LIMIT = 64 * 2**30  # bytes; a weight file that is larger is refused unless the caller says otherwise
WRAPPERS = ("state_dict", "model_state_dict", "model")


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Writes named tensors as safetensors, atomically. Tensors that share memory are written once each.

    Raises:
        OSError: the file could not be written; an older one is as it was.
        TypeError: a tensor of a kind that safetensors cannot hold.
    """
    ready = _unshared(tensors)

    def fill(temporary: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            save_file(ready, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from error

    return write_atomic(path, fill)


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file, on the CPU.

    Raises:
        OSError: the file cannot be read.
        RequestError: it is not an intact safetensors file.
    """
    return read_safetensors(path)[0]


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, as :func:`load_tensors`."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise RequestError(f"{path}: not an intact safetensors file ({_line(error)})") from None


def load_weights(path: str | Path, limit: int = LIMIT) -> dict[str, Tensor]:
    """Named tensors of a weight file from elsewhere: safetensors, or a state dict that ``torch.save`` wrote.

    Nothing in the file is run, whatever it holds. A state dict may lie under ``state_dict``, ``model_state_dict`` or
    ``model``.

    Args:
        path: the file.
        limit: size in bytes that neither the file nor what it unpacks to may exceed.

    Raises:
        RequestError: missing, unreadable, truncated, too large, of another format, or with anything but tensors in it.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise RequestError(f"weights {path}: {'a folder' if path.is_dir() else 'no such file'}")
        size = path.stat().st_size
        if size > limit:
            raise RequestError(f"weights {path}: {size} bytes, more than the limit of {limit}")
        with open(path, "rb") as file:
            start = file.read(16)
        if start[:4] == b"PK\x03\x04":
            return _load_zip(path, limit)
        if start[8:9] == b"{":
            return load_tensors(path)
    except OSError as error:
        raise RequestError(f"weights {path}: cannot be read ({error.strerror or error})") from None
    raise RequestError(
        f"weights {path}: refused: neither safetensors nor a state dict of torch.save "
        "(bare pickles and files of torch before 1.6 may hold code; save them again)"
    )


def _load_zip(path: Path, limit: int) -> dict[str, Tensor]:
    """A state dict in torch's zip format, read by the loader that knows tensors and plain types only."""
    import torch

    _check_zip(path, limit)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile input: whatever the loader chokes on is a refusal
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it holds {found[1]}, which is not a tensor" if found else _line(error)
        raise RequestError(f"weights {path}: refused: {reason}") from None
    return _checked(path, _unwrapped(loaded), path.stat().st_size)


def _check_zip(path: Path, limit: int) -> None:
    """Entries of torch.save are not compressed, so one larger than the file is a bomb or a forgery."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise RequestError(f"weights {path}: truncated or damaged ({_line(error)})") from None
    for entry in entries:
        if PurePosixPath(entry.filename).is_absolute() or ".." in PurePosixPath(entry.filename).parts:
            raise RequestError(f"weights {path}: refused: an entry leads out of the archive ({entry.filename!r:.80})")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > min(limit, path.stat().st_size) or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise RequestError(f"weights {path}: refused: unpacks to {unpacked} bytes; torch.save does not compress")


def _unwrapped(loaded: Any) -> Any:
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            return loaded[name]
    return loaded


def _checked(path: Path, loaded: Any, size: int) -> dict[str, Tensor]:
    """The state dict, if it is one and its tensors are no larger than the file they came from."""
    import torch

    if not isinstance(loaded, Mapping) or not loaded:
        raise RequestError(f"weights {path}: expected a state dict, got {type(loaded).__name__}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            got = f"{name!r:.60}: {type(value).__name__}"
            raise RequestError(f"weights {path}: expected names and tensors only, got {got}")
        if value.is_sparse or value.is_quantized or value.is_meta or value.numel() * value.element_size() > size:
            raise RequestError(f"weights {path}: refused: {name!r:.60} is not a plain tensor that fits into the file")
    return {name: value.detach() for name, value in loaded.items()}


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in memory of their own, dense and on the CPU, as safetensors wants them."""
    import torch

    ready: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided or tensor.is_quantized:
            raise TypeError(f"{name}: expected a dense tensor, got {type(tensor).__name__}")
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in taken or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        ready[name] = tensor
    return ready


def _line(error: BaseException) -> str:
    """The first line of an error, shortened."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
