"""Networks for other runtimes inside a model file, as further files of its TorchScript archive.

Such a network is a graph and its weights. Weights that the archive holds already are not stored again: a list says
which of its tensors stand where. The card holds a checksum of every such network, and a fingerprint of the TorchScript
that it was made from, so that one of another network, or a damaged one, is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nuclix.engine.errors import ModelError
from nuclix.engine.files import replace_file
from nuclix.engine.inference.card import CARD_NAME, FORMAT, FORMAT_KEY
from nuclix.engine.model_card import ModelCard
from nuclix.engine.parameters import as_mapping

_EXTRA = "extra/"  # where TorchScript keeps files that are not its own
_FOLDER = "extra/runtimes/"
_TENSORS = ("data/", "constants/")  # of an archive, each of one tensor's bytes
_GRAPH, _WEIGHTS, _PIECES = _SUFFIXES = (".graph", ".weights", ".json")
_MIN_SHARED = 64  # bytes; naming a tensor in the list takes some 20
_LIMIT = 1 << 31  # bytes of one file of an archive; a file from elsewhere may claim anything
_OF = "torchscript"  # key of the fingerprint in the card
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, KeyError)


@dataclass(frozen=True, slots=True)
class NetworkFiles:
    """A network as its runtime reads it: the text of its graph, and its weights."""

    graph: bytes
    weights: bytes


def network_names(card: ModelCard, runtime: str) -> tuple[str, ...]:
    """Return the number formats of which a model file holds a network for a runtime."""
    found = card.runtimes.get(runtime, {})
    return tuple(found) if isinstance(found, Mapping) else ()


def read_network(content: bytes, card: ModelCard, runtime: str, precision: str, where: str) -> NetworkFiles:
    """Return a network for another runtime, checked against the card.

    Parameters
    ----------
    content : bytes
        The model file.
    card : ModelCard
        Its card.
    runtime, precision : str
        Such as "openvino" and "float32".
    where : str
        The model file, for messages.

    Raises
    ------
    ModelError
        If there is none, it is damaged, or it does not belong to the file's TorchScript network.
    """
    expected = card.runtimes.get(runtime, {})
    if not isinstance(expected, Mapping) or precision not in expected:
        raise ModelError(f"{where}: holds no {precision} network for {runtime}: add one with `nuclix pack --add`")
    again = f"make it again with `nuclix pack --add {runtime}`"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if card.runtimes.get(_OF) != _fingerprint(archive):
                raise ModelError(f"{where}: its {runtime} network was made from other weights; {again}")
            root, stem = _root(archive), f"{_FOLDER}{runtime}-{precision}"
            files = {suffix: _entry(archive, f"{root}{stem}{suffix}") for suffix in _SUFFIXES}
            if _checksum(files) != expected[precision]:
                raise ModelError(f"{where}: its {runtime} network is not the one that its card describes; {again}")
            return _joined(archive, files)
    except (*_BAD_ZIP, ValueError, TypeError) as problem:
        raise ModelError(f"{where}: its {runtime} network is damaged: {problem}; {again}") from problem


def write_networks(
    source: Path, out: Path, card: ModelCard, runtime: str, networks: Mapping[str, NetworkFiles]
) -> ModelCard:
    """Write a copy of a TorchScript model file that holds networks for another runtime, too.

    Parameters
    ----------
    source, out : Path
        The model file and its copy, which may be the same.
    card : ModelCard
        The card to write; `runtimes` is filled in.
    runtime : str
        Such as "openvino"; networks of it that the file holds are replaced.
    networks : mapping of str to NetworkFiles
        By number format.

    Returns
    -------
    ModelCard
        As it was written.
    """
    buffer, prefix = io.BytesIO(), f"{_FOLDER}{runtime}-"
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(buffer, "w") as written:
        root = _root(read)
        tensors = _tensors(read)
        files = {precision: _files(network, tensors) for precision, network in networks.items()}
        sums = {precision: _checksum(content) for precision, content in files.items()}
        done = replace(card, runtimes={**card.runtimes, _OF: _fingerprint(read), runtime: sums})
        text = json.dumps({FORMAT_KEY: FORMAT, **as_mapping(done)}, indent=1, ensure_ascii=False)
        for info in read.infolist():
            name = info.filename.removeprefix(root)
            if name.startswith(prefix):
                continue
            is_card = name == f"{_EXTRA}{CARD_NAME}"
            _add(written, info.filename, text.encode() if is_card else read.read(info), info.compress_type)
        for precision, content in files.items():
            for suffix, data in content.items():
                _add(written, f"{root}{prefix}{precision}{suffix}", data, zipfile.ZIP_DEFLATED)
    replace_file(out, buffer.getvalue())
    return done


def _add(archive: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    entry = zipfile.ZipInfo(name)  # without a date: the same networks give the same file
    entry.compress_type = compression
    archive.writestr(entry, content)


def _root(archive: zipfile.ZipFile) -> str:
    """Return the archive's own name, before all of its files' names."""
    return archive.namelist()[0].partition("/")[0] + "/"


def _fingerprint(archive: zipfile.ZipFile) -> str:
    """Return what tells TorchScript networks apart: names, sizes and CRCs of the program's files and tensors."""
    root = _root(archive)
    members = ((info.filename.removeprefix(root), info.file_size, info.CRC) for info in archive.infolist())
    own = sorted(item for item in members if not item[0].startswith(_EXTRA))
    return hashlib.sha256(repr(own).encode()).hexdigest()


def _tensors(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Return the bytes of the tensors by name, those that are worth a mention."""
    root = _root(archive)
    names = {info.filename.removeprefix(root): info for info in archive.infolist() if info.file_size >= _MIN_SHARED}
    return {name: archive.read(info) for name, info in names.items() if name.startswith(_TENSORS)}


def _files(network: NetworkFiles, tensors: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files that hold a network next to tensors that are there already."""
    own, pieces = b"", []
    for name, part in _pieces(network.weights, tensors):
        pieces.append([name, len(part)])
        own += b"" if name else part
    return {_GRAPH: network.graph, _WEIGHTS: own, _PIECES: json.dumps(pieces).encode()}


def _pieces(weights: bytes, tensors: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the weights in parts: a tensor's name and bytes, or an empty name and what is in no tensor."""
    places = sorted((weights.find(content), name) for name, content in tensors.items())
    end = 0
    for start, name in places:
        if start < end:  # it is not there (-1), or within another tensor that is
            continue
        if start > end:
            yield "", weights[end:start]
        yield name, tensors[name]
        end = start + len(tensors[name])
    if end < len(weights):
        yield "", weights[end:]


def _checksum(files: Mapping[str, bytes]) -> str:
    """Return the checksum of a network's files; the tensors that they name are covered by the fingerprint."""
    return hashlib.sha256(b"".join(hashlib.sha256(files[suffix]).digest() for suffix in _SUFFIXES)).hexdigest()


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > _LIMIT:
        raise ValueError(f"{name} is larger than {_LIMIT} bytes")
    return archive.read(info)


def _joined(archive: zipfile.ZipFile, files: Mapping[str, bytes]) -> NetworkFiles:
    """Return a network from its files and the archive's tensors."""
    root, own, place, parts = _root(archive), files[_WEIGHTS], 0, []
    pieces: Any = json.loads(files[_PIECES])
    for name, size in pieces:
        part = _entry(archive, f"{root}{name}") if name else own[place : place + size]
        place += 0 if name else size
        if len(part) != size:
            raise ValueError(f"{size} bytes of weights are expected, {len(part)} are there")
        parts.append(part)
    return NetworkFiles(files[_GRAPH], b"".join(parts))
