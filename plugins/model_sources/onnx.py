"""ONNX files, run by ONNX Runtime (``pip install onnxruntime``)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nuclix.engine.errors import DeviceError, ModelError
from nuclix.engine.model_card import ModelCard

if TYPE_CHECKING:
    import torch

CARD_KEY = "nuclix.json"
INSTALL = "running ONNX files needs ONNX Runtime: pip install onnxruntime"
# A serialised ModelProto begins with field 1 (ir_version, a small varint) and then a field with a length.
_FIRST_FIELD = 0x08
_LARGEST_VERSION = 0x7F
_NEXT_FIELDS = (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42)  # producer, its version, domain, doc, graph, opset
# Of a serialised message: kinds of fields, those of fixed size in bytes, and the numbers of fields that are read.
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
_GRAPH, _INITIALIZER, _EXTERNAL = 7, 5, 13  # of a model, its graph and a tensor, as onnx.proto numbers them
_METADATA, _KEY, _VALUE = 14, 1, 2
_MAX_BITS = 63
MAX_CARD = 1 << 20  # bytes of an entry; a card is a few kB
_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(float16)": "float16"}


class OnnxSource:
    """Loads ONNX files; the card lies inside (metadata ``nuclix.json``) or in a TOML file next to the file."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether the file begins as a serialised ONNX model does and is named ``.onnx``."""
        if path.suffix.lower() != ".onnx":
            return False
        try:
            with path.open("rb") as file:
                head = file.read(3)
        except OSError:
            return False
        return len(head) == 3 and head[0] == _FIRST_FIELD and head[1] <= _LARGEST_VERSION and head[2] in _NEXT_FIELDS

    @classmethod
    def card_text(cls, path: Path) -> bytes | None:
        """Return the file's metadata under ``nuclix.json``, without loading the network.

        Raises
        ------
        ModelError
            If the file can't be read or ends early.
        """
        try:
            with path.open("rb") as file:
                return _metadata(file, CARD_KEY.encode())
        except OSError as error:
            raise ModelError(f"{path}: can't be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ModelError(f"{path}: is not a complete ONNX file: {error}") from error

    @classmethod
    def with_card(cls, content: bytes, card: bytes) -> bytes:
        """Return the file with one more entry of metadata: messages that are written one after the other merge.

        A card that it holds already stays first; `card_text` reads the last.
        """
        entry = _field(_KEY, CARD_KEY.encode()) + _field(_VALUE, card)
        return content + _field(_METADATA, entry)

    @classmethod
    def load(cls, path: Path, card: ModelCard, device: str, *, trust: bool = False) -> Callable[[torch.Tensor], Any]:
        """Return a callable that runs the network.

        Raises
        ------
        ModelError
            If ONNX Runtime is missing or can't load the file, or the file keeps weights in other files.
        DeviceError
            If it can't use the device.
        """
        try:
            content = path.read_bytes()
            check_weights_inside(content, path)
        except OSError as error:
            raise ModelError(f"{path}: can't be read: {error.strerror or error}") from error
        return _Network(_session(path, content, device), path)


def _metadata(file: BinaryIO, key: bytes) -> bytes | None:
    """Return the last value of a key among a serialised model's metadata (field 14), passing over the network."""
    found = None
    for member in _members(file, _METADATA, MAX_CARD):
        entry = dict(_strings(member))
        if entry.get(_KEY) == key:
            found = entry.get(_VALUE, b"")
    return found


def _field(number: int, content: bytes) -> bytes:
    """Return a field of bytes as it is serialised."""
    out = bytearray([number << 3 | _BYTES])
    size = len(content)
    while size > _LARGEST_VERSION:
        out.append(size & _LARGEST_VERSION | 0x80)
        size >>= 7
    return bytes(out) + bytes([size]) + content


def _strings(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield field numbers and contents of a message that holds strings only."""
    inner = io.BytesIO(message)
    while (head := _varint(inner)) is not None:
        size = _varint(inner)
        yield head >> 3, inner.read(size or 0)


def _varint(file: BinaryIO) -> int | None:
    """Return a number of seven bits a byte, or None at the end of the file."""
    value, shift = 0, 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            return value
        if shift > _MAX_BITS:
            raise ValueError("a number has more than 64 bits")
    if shift:
        raise ValueError("it ends within a number")
    return None


def check_weights_inside(content: bytes, path: Path) -> None:
    """Refuse an ONNX file whose weights lie in other files: they may be anywhere, and its hash does not cover them.

    Parameters
    ----------
    content : bytes
        The file.
    path : Path
        Its name, for messages.

    Raises
    ------
    ModelError
        If an initializer of the graph names another file, or the file ends early.
    """
    try:
        for graph in _members(io.BytesIO(content), _GRAPH):
            for tensor in _members(io.BytesIO(graph), _INITIALIZER):
                if any(_members(io.BytesIO(tensor), _EXTERNAL)):
                    raise ModelError(
                        f"{path}: keeps its weights in other files (external data), which its hash does not cover; "
                        "save it as one file: onnx.save(model, path, save_as_external_data=False)"
                    )
    except ValueError as error:
        raise ModelError(f"{path}: is not a complete ONNX file: {error}") from error


def _members(message: BinaryIO, wanted: int, limit: int | None = None) -> Iterator[bytes]:
    """Yield the contents of the fields of a number, up to so many bytes each, passing over all others."""
    while (head := _varint(message)) is not None:
        field, kind = head >> 3, head & 7
        if kind == _VARINT:
            _varint(message)
            continue
        size = _FIXED[kind] if kind in _FIXED else _varint(message)
        if size is None or (kind != _BYTES and kind not in _FIXED):
            raise ValueError(f"unknown field {field} of type {kind}")
        if field == wanted and kind == _BYTES and (limit is None or size <= limit):
            yield message.read(size)
        else:
            message.seek(size, os.SEEK_CUR)


def _session(path: Path, content: bytes, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(f"{path}: {INSTALL}") from None
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise DeviceError(
                f"{path}: this ONNX Runtime has no CUDA: pip install onnxruntime-gpu, or run with --device cpu"
            )
        number = device.partition(":")[2] or "0"
        providers = [("CUDAExecutionProvider", {"device_id": number}), *providers]  # type: ignore[list-item]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        raise ModelError(f"{path}: ONNX Runtime can't load this network: {str(error).splitlines()[0]}") from error


class _Network:
    """Runs a session on batches."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session = session
        inputs = session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(f"{path}: has {len(inputs)} inputs; a network takes one batch of images")
        if inputs[0].type not in _TYPES:
            raise ModelError(f"{path}: takes {inputs[0].type}; {', '.join(_TYPES)} are supported")
        self._input, self._type = inputs[0].name, _TYPES[inputs[0].type]
        self._outputs = [item.name for item in session.get_outputs()]

    def __call__(self, images: torch.Tensor) -> Any:
        import numpy as np
        import torch

        batch = np.ascontiguousarray(images.cpu().numpy().astype(self._type, copy=False))
        try:
            values = self._session.run(None, {self._input: batch})
        except Exception as error:
            problem = " ".join(str(error).split())
            raise RuntimeError(
                f"ONNX Runtime fails on a batch of {' x '.join(map(str, batch.shape))}: {problem}; a network of fixed "
                "sizes takes the batch (--batch) and the patch that it was exported for"
            ) from error
        outputs = {
            name: torch.from_numpy(value).to(images.device) for name, value in zip(self._outputs, values, strict=True)
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs
