"""Slides at addresses such as ``https://`` and ``s3://``: copied into the output folder before a run."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from nuclix.engine.errors import UsageError
from nuclix.engine.files import replace_file, temporary_name

log = logging.getLogger("nuclix")

_SCHEME = "://"
_PATTERN = frozenset("*?[")
_WEB = ("http", "https")
# Files whose pixels lie in a folder next to them.
_SEVERAL_FILES = frozenset((".mrxs", ".vms", ".vmu", ".vsi", ".dcm"))
# What stores say of a file, the first that they do; it changes when the file does.
_VERSIONS = ("ETag", "etag", "LastModified", "mtime", "last_modified", "created")


@dataclass(frozen=True, slots=True)
class LocalInputs:
    """Inputs as paths.

    Attributes
    ----------
    paths : tuple of str
        Files, folders and patterns.
    problems : mapping of str to str
        Why a copy could not be made, by its path in `paths`: a message for the user. There is no file then.
    """

    paths: tuple[str, ...]
    problems: Mapping[str, str]


class _CopyError(Exception):
    """A file that is there could not be copied."""

    def __init__(self, target: Path, message: str) -> None:
        super().__init__(message)
        self.target = target


def is_remote(text: str) -> bool:
    """Return whether an input is the address of a file rather than a path.

    >>> is_remote("s3://bucket/a.svs"), is_remote("slides/a.svs")
    (True, False)
    """
    return _SCHEME in text


def local_inputs(inputs: Sequence[str], folder: Path, *, download: bool) -> LocalInputs:
    """Return inputs with the addresses among them replaced by local copies.

    Parameters
    ----------
    inputs : sequence of str
        Paths and addresses; an address may be a pattern such as ``s3://bucket/study/*.svs``.
    folder : Path
        Where copies are kept, each in a folder of its own.
    download : bool
        Whether files that are not there yet are copied; otherwise they are an error.

    Returns
    -------
    LocalInputs
        Paths, and which copies failed: one lost connection does not keep the other slides from being segmented.

    Raises
    ------
    UsageError
        If an address does not exist, matches nothing, or needs a library that is not installed.
    """
    problems: dict[str, str] = {}
    paths = tuple(path for text in inputs for path in _local(text, folder, download, problems))
    return LocalInputs(paths, problems)


def _local(text: str, folder: Path, download: bool, problems: dict[str, str]) -> Iterator[str]:
    if not is_remote(text):
        yield text
        return
    system, path = _store(text)
    try:
        paths = _matches(system, path, text)
        for found in paths:
            try:
                yield str(_copy(system, found, text, folder, download=download))
            except _CopyError as error:
                problems[str(error.target)] = str(error)
                yield str(error.target)
    except UsageError:
        raise
    except Exception as error:  # stores raise errors of their own libraries
        raise UsageError(f"{text}: can't be read ({type(error).__name__}: {error})") from error


def _store(text: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{text}: addresses need fsspec: pip install fsspec aiohttp s3fs") from error
    try:
        system, path = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise UsageError(f"{text}: needs a library that is missing ({error}): install it with pip") from error
    except ValueError as error:
        raise UsageError(f"{text}: {error}") from error
    return system, str(path)


def _matches(system: Any, path: str, text: str) -> Sequence[str]:
    scheme = text.partition(_SCHEME)[0].lower()
    if scheme in _WEB or not _PATTERN & set(path):
        return (path,)
    found = sorted(str(match) for match in system.glob(path))
    if not found:
        raise UsageError(f"{text}: matches no file")
    return found


def _copy(system: Any, path: str, text: str, folder: Path, *, download: bool) -> Path:
    """Return the local copy of a file; copied again where the file has another size or version."""
    name = PurePosixPath(unquote(urlsplit(path).path if _SCHEME in path else path)).name
    if not name:
        raise UsageError(f"{text}: names no file")
    if PurePosixPath(name).suffix.lower() in _SEVERAL_FILES:
        raise UsageError(f"{text}: such a slide has several files; copy them to a disk and name the local slide")
    facts = system.info(path)
    if facts.get("type") == "directory":
        raise UsageError(f"{text}: is a folder; name its slides by a pattern such as {text.rstrip('/')}/*.svs")
    version = next((str(facts[key]) for key in _VERSIONS if facts.get(key)), "")
    state = json.dumps({"address": path, "size": facts.get("size"), "version": version})
    place = folder / hashlib.sha256(f"{system.protocol} {path}".encode()).hexdigest()[:16]
    target, marker = place / name, place / "source.json"
    if target.is_file() and marker.is_file() and marker.read_text(encoding="utf-8") == state:
        return target
    if not download:
        raise UsageError(f"{text}: is not copied yet; `nuclix run` does that first")
    place.mkdir(parents=True, exist_ok=True)
    size = facts.get("size")
    if size and size > (free := shutil.disk_usage(place).free):
        raise UsageError(f"{text}: has {size:,} bytes, {folder} has room for {free:,}")
    log.info("copying %s (%s bytes)", text, f"{size:,}" if size else "unknown")
    temporary = temporary_name(target)
    try:
        system.get_file(path, str(temporary))
        temporary.replace(target)
    except Exception as error:  # stores raise errors of their own libraries
        target.unlink(missing_ok=True)  # an earlier version of the file
        message = f"{text}: can't be copied ({type(error).__name__}: {error}); run the same command again"
        raise _CopyError(target, message) from error
    finally:
        temporary.unlink(missing_ok=True)
    replace_file(marker, state.encode(), durable=False)
    return target
