"""The state of a checkpoint in one file that is complete and unchanged, or not used."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.files import sync_folder, temporary_name

STATE_NAME = "state.npz"
_STATE_FORMAT = 2  # of the arrays that are kept
_DIGEST_BYTES = 16


def write_state(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays and a digest of them in one step; they go to the file without another copy in memory."""
    temporary = temporary_name(path)
    try:
        with temporary.open("w+b") as file:
            np.savez(file, format=np.array(_STATE_FORMAT), **arrays)
            file.seek(0)
            digest = hashlib.file_digest(file, _digest).digest()
            file.seek(0, os.SEEK_END)
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _digest(content: bytes = b"") -> Any:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES)


def read_state(attempt: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a state file; raise an error where they are not what was written."""
    content = (attempt / STATE_NAME).read_bytes()
    written, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if _digest(written).digest() != digest:
        raise ValueError(f"{attempt / STATE_NAME} is damaged")
    with np.load(io.BytesIO(written), allow_pickle=False) as state:
        arrays = dict(state)
    if int(arrays.pop("format")) != _STATE_FORMAT:
        raise ValueError(f"{attempt / STATE_NAME} has another format")
    return arrays
