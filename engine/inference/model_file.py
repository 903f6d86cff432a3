"""Model files: TorchScript with the facts about it in ``nuclix.json`` inside, or in a TOML file beside it.

Model files are untrusted input: nothing is unpickled, and reading a card imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.contracts import ModelCard
from nuclix.engine.errors import ModelError
from nuclix.engine.parameters import as_mapping, from_mapping

if TYPE_CHECKING:
    import torch

CARD_NAME = "nuclix.json"
FORMAT_KEY = "format"
FORMAT = 1
CARD_LIMIT = 1 << 20  # bytes; a card is a few kB, and a file from elsewhere may claim anything
HASH_CHUNK = 1 << 20
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
        What the file says of itself.
    module : torch.nn.Module
        (N, 3, H, W) RGB in 0..255 to (N, maps, H, W) float32; evaluation mode.
    sha256 : str
        Hash of the model file (and of the TOML file where the card comes from there), for the record.
    """

    card: ModelCard
    module: torch.nn.Module
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
        What the file shall say of itself.
    """
    import torch

    from nuclix.engine.inference.batch_norm import fold_batch_norm

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

    text = json.dumps({FORMAT_KEY: FORMAT, **as_mapping(card)}, indent=1, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with torchscript_warnings():
        torch.jit.save(module, str(temporary), _extra_files={CARD_NAME: text})
    temporary.replace(path)


def read_card(path: Path) -> ModelCard:
    """Read what a model file says of itself, without loading the network.

    Parameters
    ----------
    path : Path
        A model file; a TOML file of the same name beside it stands in for metadata that is not inside.

    Returns
    -------
    ModelCard
        The facts.

    Raises
    ------
    ModelError
        If the file is not TorchScript, has no metadata, or the metadata does not fit; the message names the key.
    """
    inside = _card_inside(path)
    toml = path.with_suffix(".toml")
    if inside is not None:
        return _card(_parsed_json(inside, path), f"{path}, {CARD_NAME}")
    if toml.is_file():
        return _card(_parsed_toml(toml), str(toml))
    raise ModelError(
        f"{path}: is TorchScript but holds no {CARD_NAME}, so its scale and meaning are unknown; "
        + TOML_HELP.format(toml=toml)
    )


def load_model(path: Path, device: str = "cpu") -> LoadedModel:
    """Load a model file onto a device.

    Parameters
    ----------
    path : Path
        The file.
    device : str
        "cpu", "cuda" or "cuda:N".

    Returns
    -------
    LoadedModel
        Card, network and hash.

    Raises
    ------
    ModelError
        As `read_card`, and where torch can't load the network.
    """
    card = read_card(path)
    module: torch.nn.Module = load_torchscript(path, device)
    if not card.is_plain:
        from nuclix.engine.inference.adapter import AdaptedNetwork

        module = AdaptedNetwork(module, card).eval()
    return LoadedModel(card, module, model_hash(path))


def load_torchscript(path: Path, device: str) -> torch.jit.ScriptModule:
    """Load a TorchScript file onto a device; every network of a user comes by here.

    Raises
    ------
    ModelError
        If torch can't load it.
    """
    import torch

    try:
        with torchscript_warnings():
            return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as problem:
        raise ModelError(f"{path}: torch can't load this network: {_first_line(problem)}") from problem


def card_from_toml(path: Path, amend: Callable[[dict[str, Any]], None] = lambda values: None) -> ModelCard:
    """Read a card from a TOML file; `amend` may change its values before they are checked.

    Raises
    ------
    ModelError
        If the file can't be read or a value does not fit; the message names file and key.
    """
    values = _parsed_toml(path)
    amend(values)
    return _card(values, str(path))


def patch_size_of(path: Path) -> int:
    """Return ``patch.size`` of a card in TOML.

    Raises
    ------
    ModelError
        If the file can't be read or does not say it.
    """
    patch = _parsed_toml(path).get("patch")
    size = patch.get("size") if isinstance(patch, Mapping) else None
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"{path}: missing key 'size' in [patch]: the edge of the network's patch in px")
    return size


def model_hash(path: Path) -> str:
    """Return the SHA-256 of a model file, of its TOML file too where the card comes from there."""
    digest = hashlib.sha256()
    files = [path] if _card_inside(path) is not None else [path, path.with_suffix(".toml")]
    for item in files:
        with item.open("rb") as file:
            while chunk := file.read(HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def find_model(name_or_path: str | Path) -> Path:
    """Return the file of a model that came with a package (by name) or of the user's (by path).

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
    """Keep torch >= 2.13 from saying that TorchScript is old: it is the format that every version reads and writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        yield


def _card_inside(path: Path) -> bytes | None:
    """Return the bytes of the card inside a TorchScript file, or None where it holds none."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("/constants.pkl") for name in names):
                raise ModelError(f"{path}: is a zip file but not TorchScript (save it with torch.jit.save)")
            inside = [name for name in names if name.endswith(f"/extra/{CARD_NAME}")]
            if not inside:
                return None
            if archive.getinfo(inside[0]).file_size > CARD_LIMIT:
                raise ModelError(f"{path}: its {CARD_NAME} is larger than {CARD_LIMIT} bytes")
            return archive.read(inside[0])
    except zipfile.BadZipFile as problem:
        raise ModelError(f"{path}: is not TorchScript: {problem}") from problem
    except OSError as problem:
        raise ModelError(f"{path}: can't be read: {problem.strerror or problem}") from problem


def _parsed_json(text: bytes, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"{path}: its {CARD_NAME} is not JSON: {problem}") from problem
    if not isinstance(values, dict):
        raise ModelError(f"{path}: its {CARD_NAME} must be a table")
    if values.get(FORMAT_KEY) != FORMAT:
        raise ModelError(
            f"{path}: its {CARD_NAME} has the format {values.get(FORMAT_KEY)!r}; this version reads {FORMAT}"
        )
    return values


def _parsed_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise ModelError(f"{path}: can't be read as TOML: {problem}") from problem
    if values.get(FORMAT_KEY, FORMAT) != FORMAT:
        raise ModelError(f"{path}: has the format {values[FORMAT_KEY]!r}; this version reads {FORMAT}")
    return values


def _card(values: Mapping[str, Any], where: str) -> ModelCard:
    facts = {key: value for key, value in values.items() if key != FORMAT_KEY}
    scale = facts.get("scale")
    if isinstance(scale, Mapping) and "um_per_px" in scale:  # the key's name in cards of nuclix 0.1
        facts["scale"] = {"mpp" if key == "um_per_px" else key: value for key, value in scale.items()}
    card = from_mapping(ModelCard, facts, where, ModelError)
    if not card.maps or not card.classes:
        raise ModelError(f"{where}: needs at least one entry in maps and in classes")
    for item in card.classes:
        if not all(0 <= value <= 255 for value in item.color):
            raise ModelError(f"{where}: the color of class {item.name!r} must be three numbers in 0..255")
    return card


def _first_line(problem: Exception) -> str:
    return str(problem).strip().split("\n")[0]
