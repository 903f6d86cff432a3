"""Model files: TorchScript with its card in ``nuclix.json`` inside, or in a TOML file next to it.

Model files are untrusted input. Reading a card runs nothing and imports no torch; a network is loaded only after
`model_code` has found that its program does nothing but compute.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.contracts import ModelCard
from nuclix.engine.errors import ModelError
from nuclix.engine.inference.card import CARD_NAME, FORMAT, FORMAT_KEY, card_of, parse_json, parse_toml
from nuclix.engine.inference.model_source import choose_source, source_of
from nuclix.engine.parameters import as_mapping

if TYPE_CHECKING:
    import torch

CARD_LIMIT = 1 << 20  # bytes; a card is a few kB, and a file from elsewhere may claim anything
HASH_CHUNK = 1 << 20
# What zipfile raises for archives that are damaged, encrypted or compressed in an unknown way.
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError)
TOML_HELP = """\
write its facts in {toml}:
  name = "..."
  method = "..."
  maps = ["distance"]            # the output channels
  postprocessor = "dist"         # see `nuclix plugins`
  scale = {{ mpp = 0.25 }}
  patch = {{ size = 1024, margin = 96, multiple = 16 }}
  classes = [{{ name = "Nucleus", color = [255, 0, 0] }}]
  parameters = {{}}"""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    Attributes
    ----------
    card : ModelCard
        The model's metadata.
    module : torch.nn.Module or None
        (N, 3, H, W) RGB in 0..255 to (N, maps, H, W) float32; evaluation mode. None where another runtime computes.
    sha256 : str
        Hash of the model file (and of the TOML file where the card comes from there), for the record.
    """

    card: ModelCard
    module: Any
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelContent:
    """A model file that has been read once: what is hashed is what is checked and loaded.

    Attributes
    ----------
    path : Path
        The file.
    content : bytes
        All of it.
    card : ModelCard
        Its card.
    sha256 : str
        As of `LoadedModel`.
    """

    path: Path
    content: bytes
    card: ModelCard
    sha256: str


def save_model(path: Path, module: torch.nn.Module, card: ModelCard) -> None:
    """Write a model file: temporary name first, then in place.

    Parameters
    ----------
    path : Path
        The file.
    module : torch.nn.Module
        As `Exported`: RGB 0..255 in, finished maps out. Batch norms are folded into the convolutions.
    card : ModelCard
        The model's metadata.

    Raises
    ------
    ModelError
        If a weight is not a finite number; no file is written.
    """
    import torch

    from nuclix.engine.inference.batch_norm import fold_batch_norm

    check_weights(module)
    folded = fold_batch_norm(module).cpu().requires_grad_(False)
    example = torch.zeros(1, 3, card.patch.multiple * 2, card.patch.multiple * 2)
    with torch.inference_mode(), torchscript_warnings():
        traced = torch.jit.trace(folded, example, check_trace=False)
    write_model(path, traced, card)


def write_model(path: Path, module: torch.jit.ScriptModule, card: ModelCard) -> None:
    """Write TorchScript with its card inside: temporary name first, then in place.

    Parameters
    ----------
    path : Path
        The file.
    module : torch.jit.ScriptModule
        RGB 0..255 in, finished maps out.
    card : ModelCard
        What the file shall say of itself.
    """
    import torch

    text = card_text(replace(card, runtimes={}, quantisation={}))  # those belong to another network
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with torchscript_warnings():
        torch.jit.save(module, str(temporary), _extra_files={CARD_NAME: text})
    temporary.replace(path)


def card_text(card: ModelCard) -> str:
    """Return a card as the JSON that lies inside a model file."""
    return json.dumps({FORMAT_KEY: FORMAT, **as_mapping(card)}, indent=1, ensure_ascii=False)


def replace_card(source: Path, out: Path, card: ModelCard) -> None:
    """Write a copy of a model file with another card; its network stays as it is, byte by byte.

    Raises
    ------
    ModelError
        If the file holds no card inside.
    """
    if _card_inside(source) is None or source_of(source) is not None:
        raise ModelError(f"{source}: its card is not inside a TorchScript file; make one model file with `nuclix pack`")
    text = json.dumps({FORMAT_KEY: FORMAT, **as_mapping(card)}, indent=1, ensure_ascii=False)
    temporary = out.with_name(out.name + ".tmp")
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(temporary, "w") as written:
        for info in read.infolist():
            is_card = info.filename.endswith(f"/extra/{CARD_NAME}")
            entry = zipfile.ZipInfo(info.filename, info.date_time)
            entry.compress_type = info.compress_type
            written.writestr(entry, text.encode() if is_card else read.read(info))
    temporary.replace(out)


def check_weights(module: torch.nn.Module) -> None:
    """Raise `ModelError` if a network has a weight that is not a finite number."""
    import torch

    bad = [name for name, value in module.state_dict().items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise ModelError(
            f"the training diverged: {len(bad)} of the network's arrays hold values that are not finite numbers, so no "
            "model is written; train again with a lower --learning-rate"
        )


def read_card(path: Path) -> ModelCard:
    """Read a model's card without loading its network.

    Parameters
    ----------
    path : Path
        A model file; a TOML file of the same name next to it is used where the file holds no card.

    Returns
    -------
    ModelCard

    Raises
    ------
    ModelError
        If the file is not TorchScript, has no metadata, or the metadata does not fit; the message names the key.
    """
    return _read_card(path, _card_inside(path))


def _read_card(path: Path, inside: bytes | None) -> ModelCard:
    """Return the card from the bytes found inside the file, or from the TOML file where there are none."""
    toml = path.with_suffix(".toml")
    if inside is not None:
        return card_of(parse_json(inside, path), f"{path}, {CARD_NAME}")
    if toml.is_file():
        return card_of(parse_toml(toml), str(toml))
    raise ModelError(
        f"{path}: holds no {CARD_NAME}, so its scale and meaning are unknown; " + TOML_HELP.format(toml=toml)
    )


def load_model(path: Path, device: str = "cpu", *, runtime: str = "auto", trust: bool = False) -> LoadedModel:
    """Load a model file onto a device. The file is read once: what is hashed is what is checked and loaded.

    Parameters
    ----------
    path : Path
        The file.
    device : str
        "cpu", "cuda" or "cuda:N".
    runtime : str
        auto, torch or the name of a model source.
    trust : bool
        Load the program without checking that it only computes.

    Returns
    -------
    LoadedModel
        Card, network and hash.

    Raises
    ------
    ModelError
        As `read_card`, where the program does more than compute, and where torch can't load the network.
    """
    source = choose_source(path, runtime)
    file = read_model(path)
    if source is None:
        network: Any = load_torchscript(path, device, trust=trust, content=file.content)
    else:
        network = source.load(path, file.card, device, trust=trust)
        if path.read_bytes() != file.content:  # it reads the file once more
            raise ModelError(f"{path}: was replaced while it was loaded; run the same command again")
    module: torch.nn.Module = network
    if source is not None or not file.card.is_plain:
        from nuclix.engine.inference.adapter import AdaptedNetwork

        module = AdaptedNetwork(network, file.card).eval()
    return LoadedModel(file.card, module, file.sha256)


def read_model(path: Path) -> ModelContent:
    """Read a model file and its card.

    Raises
    ------
    ModelError
        As `read_card`.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ModelError(f"{path}: can't be read: {problem.strerror or problem}") from problem
    inside = _card_inside(path, io.BytesIO(content))
    card, digest = _read_card(path, inside), hashlib.sha256(content)
    if inside is None:
        digest.update(path.with_suffix(".toml").read_bytes())
    return ModelContent(path, content, card, digest.hexdigest())


def load_torchscript(
    path: Path, device: str, *, trust: bool = False, content: bytes | None = None
) -> torch.jit.ScriptModule:
    """Load a TorchScript file onto a device; every network of a user is loaded here.

    Parameters
    ----------
    path : Path
        The file.
    device : str
        "cpu", "cuda" or "cuda:N".
    trust : bool
        Load the program without checking that it only computes.
    content : bytes, optional
        The file's content, where it has been read.

    Raises
    ------
    ModelError
        If its program does more than compute, or torch can't load it.
    """
    import torch

    from nuclix.engine.inference.model_code import checked_archive

    archive = path.read_bytes() if content is None else content
    if not trust:
        archive = checked_archive(archive, str(path))
    try:
        with torchscript_warnings():
            return torch.jit.load(io.BytesIO(archive), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as problem:
        raise ModelError(f"{path}: torch can't load this network: {_first_line(problem)}") from problem


def model_hash(path: Path) -> str:
    """Return the SHA-256 of a model file, of its TOML file too where the card comes from there.

    Raises
    ------
    ModelError
        As `read_card`.
    """
    inside = _card_inside(path)
    _read_card(path, inside)
    digest = hashlib.sha256()
    files = [path] if inside is not None else [path, path.with_suffix(".toml")]
    for item in files:
        with item.open("rb") as file:
            while chunk := file.read(HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def find_model(name_or_path: str | Path) -> Path:
    """Return the file of an installed model (by name) or of the user's own (by path).

    Parameters
    ----------
    name_or_path : str or Path
        Such as "dist-kumar16" or "runs/mine.pt".

    Returns
    -------
    Path
        An existing file.

    Raises
    ------
    ModelError
        If it is neither; the message lists the known names.
    """
    from nuclix.engine import registry

    known = registry.names(registry.WEIGHTS)
    path = Path(name_or_path)
    if str(name_or_path) in known:
        locate: Any = registry.load(registry.WEIGHTS, str(name_or_path))
        path = Path(locate())
        if not path.is_file():
            raise ModelError(f"model {name_or_path!r}: its package has no file {path}")
        return path
    if path.is_file():
        return path
    raise ModelError(
        f"no model {str(name_or_path)!r}: neither a file nor one of the known models ({', '.join(known) or 'none'})"
    )


@contextmanager
def torchscript_warnings() -> Iterator[None]:
    """Silence the deprecation of TorchScript in torch >= 2.13: it is the format that every version reads and writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        yield


def _card_inside(path: Path, content: io.BytesIO | None = None) -> bytes | None:
    """Return the bytes of the card inside a model file, or None where it holds none."""
    source = source_of(path)
    if source is not None:
        return source.card_text(path)
    try:
        with zipfile.ZipFile(content or path) as archive:
            names = archive.namelist()
            if not any(name.endswith("/constants.pkl") for name in names):
                raise ModelError(f"{path}: is a zip file but not TorchScript (save it with torch.jit.save)")
            inside = [name for name in names if name.endswith(f"/extra/{CARD_NAME}")]
            if not inside:
                return None
            if archive.getinfo(inside[0]).file_size > CARD_LIMIT:
                raise ModelError(f"{path}: its {CARD_NAME} is larger than {CARD_LIMIT} bytes")
            with archive.open(inside[0]) as card:
                return card.read(CARD_LIMIT)  # whatever the header claims
    except _BAD_ZIP as problem:
        raise ModelError(f"{path}: is not TorchScript: {problem}") from problem
    except OSError as problem:
        raise ModelError(f"{path}: can't be read: {problem.strerror or problem}") from problem


def _first_line(problem: Exception) -> str:
    return str(problem).strip().split("\n")[0]
