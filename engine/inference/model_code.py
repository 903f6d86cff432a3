"""Check that the program inside a TorchScript archive only computes.

A TorchScript file holds a program. Some of its operators read and write files (``torch.from_file``, ``torch.save``),
and part of the program already runs while the file is loaded (``__setstate__``). `checked_archive` reads the program as
text, refuses every operator that is not on the list below, and returns an archive that holds what was checked and
nothing else: the program is written again from its syntax tree, so no difference between two readers of zip files or of
source text can hide an operator. Nothing is unpickled here.
"""

from __future__ import annotations

import ast
import io
import pickletools
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator

from nuclix.engine.errors import ModelError

# Operators (aten::) that compute new values from old ones; variants that end in "_" work in place.
_OPERATOR_NAMES = """
Bool Complex Float FloatImplicit Int IntImplicit ScalarImplicit __and__ __contains__ __derive_index __getitem__ __is__
__isnot__ __lshift__ __not__ __or__ __range_length __round_to_zero_floordiv __rshift__ __xor__ _convolution
_convolution_mode _log_softmax _reshape_from_tensor _set_item _shape_as_tensor _softmax _unwrap_optional
_upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact2d abs absolute acos adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add addcdiv addcmul addmm
affine_grid_generator all alpha_dropout amax amin aminmax any append arange argmax argmin argsort asin atan atan2
avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear bitwise_and bitwise_not bitwise_or bitwise_xor bmm
broadcast_tensors broadcast_to bucketize cat ceil celu chunk clamp clamp_max clamp_min clear clone col2im concat
constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy_
cos cosh cpu cross cuda cummax cummin cumprod cumsum degrees dequantize detach device diag diagonal diff dim dist div
divide dot dropout einsum elu embedding endswith eq equal erf erfc exp exp2 expand expand_as expm1 extend eye
feature_dropout fill flatten flip fliplr flipud float_power floor floor_divide floordiv fmax fmin fmod format frac
full full_like gather ge gelu get glu grid_sampler grid_sampler_2d group_norm gt hardshrink hardsigmoid hardswish
hardtanh hstack im2col index index_add index_fill index_put index_select insert instance_norm is_cuda
is_floating_point isfinite isinf isnan items keys kthvalue layer_norm le leaky_relu len lerp linear linspace list log
log10 log1p log2 log_sigmoid log_softmax logaddexp logical_and logical_not logical_or logical_xor logit logsumexp
lower lt masked_fill masked_fill_ masked_select matmul max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
max_unpool2d maximum mean median meshgrid min minimum mish mm movedim mse_loss mul multiply mv nan_to_num nanmean
nansum narrow native_batch_norm native_group_norm native_layer_norm ne neg negative new_full new_ones new_zeros
nonzero norm numel numpy_T one_hot ones ones_like ord outer pad pairwise_distance percentFormat permute pixel_shuffle
pixel_unshuffle pop pow prelu prod quantile radians reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu
relu6 remainder repeat repeat_interleave replace replication_pad1d replication_pad2d replication_pad3d reshape
reshape_as resolve_conj resolve_neg reverse roll rot90 round rsqrt rsub scalar_tensor scaled_dot_product_attention
scatter scatter_add searchsorted select selu sgn sigmoid sign silu sin sinh size slice softmax softplus softshrink
sort split split_with_sizes sqrt square squeeze stack startswith std std_mean storage_offset strip sub subtract sum
swapaxes t take take_along_dim tan tanh tensor tensor_split tensordot threshold tile to topk transpose tril triu
true_divide trunc type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze update upper upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
values var var_mean view view_as vsplit vstack warn where zero_ zeros zeros_like
"""
OPERATORS = frozenset(_OPERATOR_NAMES.split())
# What the compiler itself writes, by namespace.
_COMPILER_NAMES = """
prim.NumToTensor prim.RaiseException prim.abs prim.data prim.device prim.dictIndex prim.dtype prim.grad prim.is_cpu
prim.is_cuda prim.is_nested prim.itemsize prim.layout prim.max prim.min prim.nbytes prim.ndim prim.rangelist
prim.requires_grad prim.shape prim.tolist prim.type prim.unchecked_cast prim.unchecked_unwrap_optional
"""
_COMPILER = frozenset(_COMPILER_NAMES.split())
_BUILTIN_NAMES = "annotate unchecked_cast uninitialized range getattr isinstance int float bool str len abs min max"
_BUILTINS = frozenset((*_BUILTIN_NAMES.split(), "dict", "list", "tuple", "AssertionError", "ValueError"))
_TEMPORARY = re.compile(r"_\d+")  # the compiler's name for a function of the archive that is about to be called
_ROOTS = ("torch", "ops", "__torch__")
_OUTSIDE = "torch.classes"  # classes of C++ libraries, whose methods may do anything
_ZIP_START = b"PK\x03\x04"
# What a network needs of an archive; debug records, which are pickles of their own, are left out.
_NEEDED = re.compile(
    r"(data\.pkl|constants\.pkl|data/\d+|constants/\d+|code/.+\.py|version|byteorder|\.data/\w+|\.format_version|\.storage_alignment)"
)
_MAX_UNPACKED = 8 << 30  # bytes; a zip may claim anything


def checked_archive(content: bytes, where: str) -> bytes:
    """Return a TorchScript archive that holds only the checked program and the tensors of another one.

    Parameters
    ----------
    content : bytes
        The file.
    where : str
        Its path, for messages.

    Returns
    -------
    bytes
        An archive for `torch.jit.load`.

    Raises
    ------
    ModelError
        If the program does more than compute, or can't be read; the message names the operator.
    """
    if not content.startswith(_ZIP_START):
        raise ModelError(f"{where}: is not TorchScript: a model file begins with a zip entry")
    try:
        entries = _entries(content, where)
        trees = {name: _parsed(text, name, where) for name, text in entries.items() if name.endswith(".py")}
        for name in entries:
            if name.endswith(".pkl"):
                _check_pickle(entries[name], name, where)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as problem:
        raise ModelError(f"{where}: is damaged: {problem}; copy or download it again") from problem
    methods = _methods(trees.values())
    for name, tree in trees.items():
        for operator in _foreign(tree, methods):
            raise ModelError(
                f"{where}: its program uses {operator}, which does more than compute "
                f"(a model is a program and could read and write files: {_short(name)}); "
                "use --trust-model if you know where the file is from"
            )
    return _packed({**entries, **{name: f"{ast.unparse(tree)}\n".encode() for name, tree in trees.items()}})


def _entries(content: bytes, where: str) -> dict[str, bytes]:
    """Return the files of the archive that a network needs, by their names without the archive's own name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if len({info.filename for info in infos}) != len(infos):
            raise ModelError(f"{where}: holds two files of one name; save the model again with torch.jit.save")
        if sum(info.file_size for info in infos) > _MAX_UNPACKED:
            raise ModelError(f"{where}: would unpack to more than {_MAX_UNPACKED >> 30} GB")
        named = ((info, info.filename.partition("/")[2]) for info in infos)
        return {name: archive.read(info) for info, name in named if _NEEDED.fullmatch(name)}


def _parsed(text: bytes, name: str, where: str) -> ast.Module:
    try:
        return ast.parse(text.decode())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise ModelError(
            f"{where}: its program can't be read and so not checked ({_short(name)}: {problem}); "
            "use --trust-model if you know where the file is from"
        ) from problem


def _check_pickle(content: bytes, name: str, where: str) -> None:
    """Refuse objects of C++ classes among the attributes; the opcodes are listed, not run."""
    try:
        for _, argument, _ in pickletools.genops(content):
            if isinstance(argument, str) and _OUTSIDE in argument.replace(" ", "."):
                raise ModelError(
                    f"{where}: holds an object of a C++ class ({argument}); "
                    "use --trust-model if you know where the file is from"
                )
    except (ValueError, IndexError) as problem:
        raise ModelError(f"{where}: is damaged: {name}: {problem}; copy or download it again") from problem


def _foreign(tree: ast.Module, methods: Collection[str]) -> Iterator[str]:
    """Yield what the program names beyond the lists above."""
    roots: set[int] = set()
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):  # outer nodes come before inner ones
        if isinstance(node, ast.Attribute):
            if id(node) in roots:
                continue
            chain = _chain(node)
            roots.update(id(inner) for inner in ast.walk(node) if chain)
            if chain and chain[0] in _ROOTS:
                if not _known(chain):
                    yield ".".join(chain)
            elif id(node) in called and not (_is_operator(node.attr) or node.attr in methods):
                yield node.attr
        elif isinstance(node, ast.Name) and id(node) not in roots:
            is_function = node.id in _BUILTINS or _TEMPORARY.fullmatch(node.id)
            if node.id in _ROOTS or (id(node) in called and not is_function):
                yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Lambda | ast.Await | ast.AsyncFunctionDef):
            yield type(node).__name__.lower()


def _chain(node: ast.expr) -> tuple[str, ...]:
    """Return the names of ``a.b.c``; empty where it does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _known(chain: tuple[str, ...]) -> bool:
    name = ".".join(chain[1:])
    if chain[0] == "__torch__":
        return not name.startswith(_OUTSIDE)
    if chain[0] == "ops":
        return name in _COMPILER
    return _is_operator(name)


def _is_operator(name: str) -> bool:
    return name in OPERATORS or name.removesuffix("_") in OPERATORS


def _methods(trees: Iterable[ast.Module]) -> set[str]:
    """Return the names of the program's functions, without those that PyTorch has an operator for.

    A call such as ``x.save()`` runs the operator of that name where `x` is not one of the program's own objects.
    """
    import torch

    defined = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return defined - {schema.name.partition("::")[2] for schema in torch._C._jit_get_all_schemas()}


def _packed(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"model/{name}", content)
    return buffer.getvalue()


def _short(name: str) -> str:
    return name.removeprefix("code/")
