"""Archives of ``torch.export.save`` (``.pt2``), run by PyTorch.

Such an archive holds a graph of operators as JSON, weights, and much that is executed or unpickled when it is loaded:
guards (Python source), sample inputs (a pickle), sizes (evaluated by SymPy). `checked_export` reads the graph as text,
refuses what does more than compute, and returns an archive of what was checked and nothing else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.errors import DeviceError, ModelError
from nuclix.engine.inference.card import CARD_NAME
from nuclix.engine.inference.model_code import OPERATORS
from nuclix.engine.model_card import ModelCard

if TYPE_CHECKING:
    import torch

MAX_CARD = 1 << 20  # bytes; a card is a few kB
MAX_UNPACKED = 8 << 30  # bytes; a zip may claim anything
_ZIP_START = b"PK\x03\x04"
_MARK = "archive_format"  # an entry of these archives, which TorchScript lacks
_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.\w+")
_OPERATORS = OPERATORS | {"sym_size", "sym_numel", "sym_stride", "upsample_bilinear2d", "alias", "lift_fresh_copy"}
_ARITHMETIC = re.compile(r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge)")
_WRAPPERS = frozenset(f"torch.ops.higher_order.wrap_with_{what}" for what in ("set_grad_enabled", "autocast"))
# Sizes are expressions of these names, numbers and signs.
_SIZE_CHARACTERS = re.compile(r"[\w\s(),=+*/<>'-]*")
_SIZE_NAMES = frozenset(
    [
        "Symbol",
        "Integer",
        "Rational",
        "Mul",
        "Add",
        "Pow",
        "Max",
        "Min",
        "FloorDiv",
        "CeilDiv",
        "CleanDiv",
        "Mod",
        "PythonMod",
        "positive",
        "nonnegative",
        "integer",
        "True",
        "False",
    ]
)
_NAME = re.compile(r"[\w.]*")
_SYMBOL = re.compile(r"[su]\d+|\d+")
_CONTAINERS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_BINARY = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)")
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_GRAPH = "models/model.json"
_PLAIN = ("archive_format", "archive_version", "byteorder", ".data/version")
_SAMPLES = "data/sample_inputs/model.pt"
_SHAPE_WORDS = ("Expected input", "shape", "Guard")  # in PyTorch's errors about other inputs than exported
HELP = "export the network as TorchScript instead (torch.jit.trace)"
NOT_TRUSTED = "; --trust-model is for TorchScript: an archive of torch.export is always checked"


class ExportedSource:
    """Loads archives of ``torch.export``; the card lies inside (extra file ``nuclix.json``) or next to the file."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether the file is a zip archive with the entries of an exported program."""
        try:
            with path.open("rb") as file:
                if file.read(4) != _ZIP_START:
                    return False
            with zipfile.ZipFile(path) as archive:
                return any(name.partition("/")[2] == _MARK for name in archive.namelist())
        except (OSError, zipfile.BadZipFile, NotImplementedError):
            return False

    @classmethod
    def card_text(cls, path: Path) -> bytes | None:
        """Return the extra file ``nuclix.json`` of the archive.

        Raises
        ------
        ModelError
            If the file can't be read.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if name.partition("/")[2] == f"extra/{CARD_NAME}"]
                if not inside:
                    return None
                if archive.getinfo(inside[0]).file_size > MAX_CARD:
                    raise ModelError(f"{path}: its {CARD_NAME} is larger than {MAX_CARD} bytes")
                with archive.open(inside[0]) as card:
                    return card.read(MAX_CARD)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ModelError(f"{path}: can't be read: {error}") from error

    @classmethod
    def with_card(cls, content: bytes, card: bytes) -> bytes:
        """Return the archive with the card as its extra file, in place of one that it holds."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
            root = old.namelist()[0].partition("/")[0]
            for info in old.infolist():
                if info.filename != f"{root}/extra/{CARD_NAME}":
                    new.writestr(info, old.read(info))
            new.writestr(f"{root}/extra/{CARD_NAME}", card)
        return buffer.getvalue()

    @classmethod
    def load(cls, path: Path, card: ModelCard, device: str, *, trust: bool = False) -> Callable[[torch.Tensor], Any]:
        """Return a callable that runs the network.

        Raises
        ------
        ModelError
            If the program does more than compute, or PyTorch can't load it.
        DeviceError
            If it can't be moved to the device.
        """
        import torch
        from torch.export.passes import move_to_device_pass

        try:
            content = checked_export(path.read_bytes(), str(path))
        except ModelError as error:
            raise ModelError(f"{error}{NOT_TRUSTED}" if trust else str(error)) from error
        try:
            program = torch.export.load(io.BytesIO(content))
        except Exception as error:  # whatever the deserialiser meets
            raise ModelError(f"{path}: torch can't load this program: {_first_line(error)}; {HELP}") from error
        if not device.startswith("cpu"):
            try:
                program = move_to_device_pass(program, device)
            except (RuntimeError, ValueError) as error:
                raise DeviceError(f"{path}: can't be moved to {device}: {_first_line(error)}") from error
        return _Network(program.module(check_guards=False), path)


class _Network:
    """Runs an exported program; it is in evaluation mode or not as it was exported."""

    def __init__(self, module: torch.nn.Module, path: Path) -> None:
        self._module, self._path = module, path

    def __call__(self, images: torch.Tensor) -> Any:
        try:
            return self._module(images.contiguous())
        except (RuntimeError, AssertionError) as error:
            if not any(word in str(error) for word in _SHAPE_WORDS):
                raise
            raise RuntimeError(
                f"{self._path} was exported for other shapes than {tuple(images.shape)}: {_first_line(error)}; export "
                "it for a batch of 1 (or --batch) and patches of the card's size, or with dynamic shapes"
            ) from error


def checked_export(content: bytes, where: str) -> bytes:
    """Return an archive for `torch.export.load` that holds only the checked graph and the tensors of another one.

    Parameters
    ----------
    content : bytes
        The file.
    where : str
        Its path, for messages.

    Returns
    -------
    bytes
        Without guards, sample inputs, records of source code and extra files.

    Raises
    ------
    ModelError
        If the graph does more than compute, or the archive is not as expected.
    """
    try:
        entries = _entries(content, where)
        graph = json.loads(entries[_GRAPH])
        configs = {name: json.loads(entries.get(name, b'{"config": {}}')) for name in _CONFIGS}
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        RecursionError,
    ) as error:
        raise ModelError(f"{where}: is damaged: {error}; copy or download it again") from error
    except KeyError as error:
        raise ModelError(f"{where}: holds no {error.args[0]}: save it with torch.export.save") from error
    for problem in _problems(graph):
        raise ModelError(f"{where}: its program uses {problem}, which is not on the list of what only computes; {HELP}")
    for config in configs.values():
        for name, payload in config.get("config", {}).items():
            if payload.get("use_pickle") is not False:
                raise ModelError(f"{where}: holds {name} as a pickle, which can run code; {HELP}")
    graph |= {"guards_code": []}
    clean = {name: entries[name] for name in entries if _BINARY.fullmatch(name) or name in _PLAIN}
    clean |= {name: json.dumps(config).encode() for name, config in configs.items()}
    return _packed({**clean, _GRAPH: json.dumps(graph).encode(), _SAMPLES: b""})


def _entries(content: bytes, where: str) -> dict[str, bytes]:
    """Return the files of the archive by their names without the archive's own name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if len({info.filename for info in infos}) != len(infos):
            raise ModelError(f"{where}: holds two files of one name; save the model again")
        if sum(info.file_size for info in infos) > MAX_UNPACKED:
            raise ModelError(f"{where}: would unpack to more than {MAX_UNPACKED >> 30} GB")
        named = ((info, info.filename.partition("/")[2]) for info in infos)
        needed = (*_PLAIN, _GRAPH, *_CONFIGS)
        return {name: archive.read(info) for info, name in named if name in needed or _BINARY.fullmatch(name)}


def _problems(value: Any) -> Iterator[str]:
    """Yield what a graph holds besides known operators, sizes and containers; records of its source are emptied."""
    if isinstance(value, list):
        for item in value:
            yield from _problems(item)
    elif isinstance(value, dict):
        if "metadata" in value:
            value["metadata"] = {}
        for key, item in value.items():
            if not _NAME.fullmatch(key):
                yield repr(key)
            if isinstance(item, dict | list):
                yield from _problems(item)
            elif isinstance(item, str) and not _check_of(key)(item):
                yield repr(item)


def _check_of(key: str) -> Callable[[str], bool]:
    if key.endswith("name"):  # PyTorch writes names into the source of a function
        return lambda text: bool(_NAME.fullmatch(text))
    return _CHECKS.get(key, lambda text: True)


def _is_known(target: str) -> bool:
    found = _ATEN.fullmatch(target)
    if found:
        return found[1] in _OPERATORS
    return bool(_ARITHMETIC.fullmatch(target)) or target in _WRAPPERS


def _is_size(text: str) -> bool:
    words = re.findall(r"\w+", text)
    return bool(_SIZE_CHARACTERS.fullmatch(text)) and all(
        word in _SIZE_NAMES or _SYMBOL.fullmatch(word) for word in words
    )


def _is_container(text: str) -> bool:
    """Return whether a tree of inputs or outputs, as PyTorch writes it, is of tuples, lists and dictionaries."""
    try:
        waiting = [json.loads(text)[1]]
    except (ValueError, LookupError, TypeError):
        return False
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or node.get("type") not in _CONTAINERS:
            return False
        waiting.extend(node.get("children_spec", []))
    return True


_CHECKS: dict[str, Callable[[str], bool]] = {
    "target": _is_known,
    "as_operator": _is_known,
    "as_custom_obj": lambda text: False,
    "expr_str": _is_size,
    "in_spec": _is_container,
    "out_spec": _is_container,
}


def _packed(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"model/{name}", content)
    return buffer.getvalue()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
