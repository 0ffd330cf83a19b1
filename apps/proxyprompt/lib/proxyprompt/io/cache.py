"""What is computed from studies and kept: tensors under a key made of content, never of file names.

An entry is found by the hash of everything that decided it (pixels, label, weights, options), so a stale entry can
not be read: a change gives another key. Purging is therefore not needed for correctness but so that nothing derived
from an edited or deleted label stays behind: every entry carries tags, and ``purge(tag)`` removes what carries it.

In memory and on disk the least recently used entries go first. One folder may serve several processes: files are
written beside and renamed, the last use is the file's modification time, and a file that another process removed is
simply a miss. A purge reaches the memory of its own process and the disk; other processes keep what they hold in
memory until they drop it, which is harmless, since they can only find it by the content it came from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from .files import TEMPORARY, replacing

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{16,128}")
_SUFFIX = ".safetensors"
_LARGEST_HEADER = 1 << 20  # bytes; a damaged length must not make us read more
_RESCAN_SECONDS = 5.0  # other processes write too: how old our view of the folder may be
_ABANDONED_SECONDS = 3600.0  # a temporary file this old was left by a process that died


def content_key(*parts: object) -> str:
    """Hash parts in order.

    Every part is hashed with its kind and length, so that ("ab", "c") and ("a", "bc") differ.

    Args:
        *parts: each is bytes, an array or tensor (its type and shape count), or anything that JSON can hold (keys
            sorted).

    Returns:
        sha256 as 64 hex digits.

    Raises:
        TypeError: for other parts.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, (bytes, bytearray, memoryview)):
            kind, payload = "bytes", bytes(part)
        elif isinstance(part, (np.ndarray, Tensor)):
            array = np.ascontiguousarray(part.detach().cpu().numpy() if isinstance(part, Tensor) else part)
            kind, payload = f"array {array.dtype.str} {array.shape}", array.tobytes()
        else:
            try:
                text = json.dumps(part, sort_keys=True, separators=(",", ":"), allow_nan=False)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"a content key cannot hold {type(part).__name__} {part!r}; give bytes, arrays or what JSON holds"
                ) from error
            kind, payload = "json", text.encode()
        digest.update(f"{kind}:{len(payload)}:".encode())
        digest.update(payload)
    return digest.hexdigest()


@dataclass(frozen=True)
class Entry:
    """One cached result, shared by everybody who asks for the key: read it, never write into it.

    Attributes:
        tensors: by name, on the CPU.
        meta: what JSON can hold.
        tags: a purge of any of them removes the entry.
    """

    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()

    @property
    def nbytes(self) -> int:
        """Of the tensors."""
        return sum(t.nbytes for t in self.tensors.values())


class ContentCache:
    """A bounded map from content key to :class:`Entry`, in memory and on disk.

    All methods may be called from any thread. An entry that exceeds a bound by itself is not kept there.

    Args:
        folder: where files lie; None for memory only.
        memory_bytes: bound of the tensors in memory.
        disk_bytes: bound of the files.

    Raises:
        ValueError: for a negative bound.
    """

    def __init__(self, folder: str | os.PathLike | None, *, memory_bytes: int, disk_bytes: int) -> None:
        if memory_bytes < 0 or disk_bytes < 0:
            raise ValueError(f"cache bounds are bytes, 0 or more: got memory {memory_bytes}, disk {disk_bytes}")
        self._folder = None if folder is None else Path(folder)
        self._memory_limit, self._disk_limit = memory_bytes, disk_bytes
        self._lock = threading.RLock()
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._memory_bytes = 0
        self._pending: dict[str, Future[Entry]] = {}
        self._purges: list[str] = []  # tags purged in this process, so that a computation under way is not stored
        self._disk_bytes, self._scanned = 0, float("-inf")
        self._counts = dict.fromkeys(("hits_memory", "hits_disk", "misses", "evicted", "dropped", "purged"), 0)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._trim_disk()

    def get(self, key: str) -> Entry | None:
        """Look an entry up, in memory or else on disk.

        Args:
            key: from :func:`content_key`.

        Returns:
            The entry; None when it is not there or its file is damaged.

        Raises:
            ValueError: for something else than a key.
        """
        with self._lock:
            entry = self._memory.get(_checked(key))
            if entry is not None:
                self._memory.move_to_end(key)
                self._counts["hits_memory"] += 1
                return entry
            purges = len(self._purges)
        entry = self._load(key)
        with self._lock:
            self._counts["misses" if entry is None else "hits_disk"] += 1
            if entry is not None and not entry.tags.intersection(self._purges[purges:]):
                self._keep_in_memory(key, entry)
        return entry

    def put(
        self,
        key: str,
        tensors: Mapping[str, Tensor],
        *,
        tags: Iterable[str] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Keep tensors, replacing what was there.

        Args:
            key: from :func:`content_key`.
            tensors: by name; moved to the CPU and detached.
            tags: for :meth:`purge`.
            meta: what JSON can hold.

        Returns:
            The entry.

        Raises:
            ValueError: for something else than a key.
        """
        entry = Entry(_owned(tensors), dict(meta or {}), frozenset(tags))
        self._store(_checked(key), entry, purges=len(self._purges))
        return entry

    def get_or_compute(
        self, key: str, tags: Iterable[str], compute: Callable[[], Mapping[str, Tensor] | Entry]
    ) -> Entry:
        """The entry of a key, computed when there is none.

        Threads that ask for one key at the same time share one computation, and its exception if it fails. If one of
        the tags is purged meanwhile, the result is returned but not kept.

        Args:
            key: from :func:`content_key`.
            tags: what is computed is kept under these.
            compute: returns tensors, or an :class:`Entry` to add metadata and tags.

        Returns:
            The entry.

        Raises:
            ValueError: for something else than a key; besides, what ``compute`` raises.
        """
        with self._lock:
            waiting = self._pending.get(_checked(key))
            if waiting is None:
                mine: Future[Entry] = Future()
                self._pending[key] = mine
            purges = len(self._purges)
        if waiting is not None:
            return waiting.result()
        try:
            entry = self.get(key)
            if entry is None:
                made = compute()
                made = made if isinstance(made, Entry) else Entry(made)
                entry = Entry(_owned(made.tensors), made.meta, made.tags | frozenset(tags))
                self._store(key, entry, purges=purges)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(entry)
            return entry
        finally:
            with self._lock:
                del self._pending[key]

    def purge(self, tag: str) -> int:
        """Remove every entry that carries a tag, in memory and on disk.

        Args:
            tag: which.

        Returns:
            How many keys went.
        """
        with self._lock:
            self._purges.append(tag)
            gone = {key for key, entry in self._memory.items() if tag in entry.tags}
            for key in gone:
                self._memory_bytes -= self._memory.pop(key).nbytes
            for path, _, _ in self._files():
                if tag in _read_tags(path):
                    _remove(path)
                    gone.add(path.stem)
            self._scanned = float("-inf")
            self._counts["purged"] += len(gone)
        if gone:
            logger.info("cache: purged %d entries of %s", len(gone), tag)
        return len(gone)

    def clear(self) -> None:
        """Remove everything, in memory and on disk."""
        with self._lock:
            self._memory.clear()
            self._memory_bytes = 0
            for path, _, _ in self._files():
                _remove(path)
            self._disk_bytes, self._scanned = 0, float("-inf")

    def stats(self) -> dict[str, int]:
        """Counts since the start (hits in memory and on disk, misses, ...) and the bytes held now."""
        with self._lock:
            return {**self._counts, "memory_bytes": self._memory_bytes, "disk_bytes": self._disk_bytes}

    # memory

    def _keep_in_memory(self, key: str, entry: Entry) -> None:
        old = self._memory.pop(key, None)
        self._memory_bytes -= old.nbytes if old else 0
        if entry.nbytes > self._memory_limit:
            return
        self._memory[key] = entry
        self._memory_bytes += entry.nbytes
        while self._memory_bytes > self._memory_limit:
            _, dropped = self._memory.popitem(last=False)
            self._memory_bytes -= dropped.nbytes
            self._counts["evicted"] += 1

    def _store(self, key: str, entry: Entry, *, purges: int) -> None:
        written = self._write(key, entry)
        with self._lock:
            if entry.tags.intersection(self._purges[purges:]):
                if written:
                    _remove(written)
                return
            self._keep_in_memory(key, entry)

    # disk

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{_SUFFIX}"

    def _write(self, key: str, entry: Entry) -> Path | None:
        if self._folder is None or entry.nbytes > self._disk_limit:
            return None
        header = {
            "meta": json.dumps(dict(entry.meta), allow_nan=False),
            "tags": json.dumps(sorted(entry.tags)),
            "crc32": str(_checksum(entry.tensors)),
        }
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as beside:
                save_file({name: x.contiguous() for name, x in entry.tensors.items()}, beside, metadata=header)
                size = beside.stat().st_size
        except OSError as error:  # a full or read-only disk must not fail the request that filled the cache
            logger.warning("cache: could not write %s: %s; going on without", path, error)
            return None
        with self._lock:
            self._disk_bytes += size
            if self._disk_bytes > self._disk_limit or time.monotonic() - self._scanned > _RESCAN_SECONDS:
                self._trim_disk()
        return path

    def _load(self, key: str) -> Entry | None:
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            raw = path.read_bytes()  # at once: another process may remove or replace the file at any moment
            header = _header(raw[:8], raw[8:])
            tensors = load(raw)
            tags, meta = frozenset(json.loads(header["tags"])), json.loads(header["meta"])
            if _checksum(tensors) != int(header["crc32"]):
                raise ValueError("its checksum does not match")
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("cache: dropping damaged file %s: %s", path, error)
            _remove(path)
            with self._lock:
                self._counts["dropped"] += 1
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Entry(_owned(tensors), meta, tags)

    def _files(self) -> list[tuple[Path, float, int]]:
        """(path, last use, bytes) of every entry on disk; clears abandoned temporary files on the way."""
        found = []
        for shard in self._folder.iterdir() if self._folder is not None else ():
            if not (shard.is_dir() and len(shard.name) == 2):
                continue
            for item in os.scandir(shard):
                with contextlib.suppress(OSError):
                    status = item.stat()
                    if item.name.endswith(_SUFFIX):
                        found.append((Path(item.path), status.st_mtime, status.st_size))
                    elif item.name.endswith(TEMPORARY) and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                        _remove(Path(item.path))
        return found

    def _trim_disk(self) -> None:
        """Looks at the folder and removes the least recently used files until the bound holds."""
        files = sorted(self._files(), key=lambda f: f[1])
        total = sum(size for _, _, size in files)
        for path, _, size in files:
            if total <= self._disk_limit:
                break
            _remove(path)
            total -= size
            self._counts["evicted"] += 1
        self._disk_bytes, self._scanned = total, time.monotonic()


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"a cache key is 16 to 128 lower-case hex digits (see content_key): got {key!r}")
    return key


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, detached, contiguous in either order, each with a storage of its own that is no larger than it."""
    owned, storages = {}, set()
    for name, given in tensors.items():
        tensor = given.detach().cpu()
        if not (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)):
            tensor = tensor.contiguous()
        if tensor.numel() == 1:  # counts as contiguous whatever its strides are, which view() does not take
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        storage = tensor.untyped_storage()
        if storage.nbytes() > tensor.nbytes or storage.data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        owned[name] = tensor
    return owned


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), value)
    return value


def _header(length: bytes, rest: bytes) -> dict[str, str]:
    """Our metadata in a safetensors file: 8 bytes length (little endian), then JSON. ValueError if it is none."""
    return dict(json.loads(rest[: int.from_bytes(length, "little")])["__metadata__"])


def _read_tags(path: Path) -> frozenset[str]:
    """The tags in a file's header; an unreadable file has none (it is dropped when somebody asks for it)."""
    try:
        with path.open("rb") as file:
            length = file.read(8)
            header = _header(length, file.read(min(int.from_bytes(length, "little"), _LARGEST_HEADER)))
        return frozenset(json.loads(header["tags"]))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
