"""Released Once-For-All super-networks: their PyTorch checkpoints become super-networks of ours.

Both have the same parts under other names; the names and their older spellings are facts read off the
released code (mit-han-lab/once-for-all, MobileNetV3; Cai et al., 2020).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Size, Tensor

from nat2deploy.errors import UserError
from nat2deploy.files import sha256
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_state
from nat2deploy.supernet.network import SuperNetwork

KERNELS = (3, 5, 7)
"""The released networks' kernel sizes, and so the transforms that their checkpoints hold."""
IMAGENET_CLASSES = 1000
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Older spellings, in the order in which they are replaced: dynamic and plain layers are named alike then.
_SPELLINGS = (
    (".mobile_inverted_conv.", ".conv."),
    (".bn.bn.", ".bn."),
    (".conv.conv.weight", ".conv.weight"),
    (".linear.linear.", ".linear."),
)
# Our modules and theirs: at the network's beginning, in each block, and in the exit.
_STEM = {"conv": "first_conv.conv", "bn": "first_conv.bn"}
_BLOCK = {
    "expand": "inverted_bottleneck.conv",
    "expand_bn": "inverted_bottleneck.bn",
    "depthwise": "depth_conv.conv",
    "depthwise_bn": "depth_conv.bn",
    "se.reduce": "depth_conv.se.fc.reduce",
    "se.expand": "depth_conv.se.fc.expand",
    "project": "point_linear.conv",
    "project_bn": "point_linear.bn",
}
_EXIT = {
    "0.expand": "final_expand_layer.conv",
    "0.expand_bn": "final_expand_layer.bn",
    "0.mix": "feature_mix_layer.conv",
    "1.linear": "classifier.linear",
}
_CLASSIFIER = "classifier.linear.weight"
_COUNTER = "num_batches_tracked"
_VARIANCE = "running_var"
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def import_once_for_all(
    path: Path, space: SearchSpace, classes: int | None = None, seed: int = 0
) -> tuple[SuperNetwork, SuperNetworkInfo]:
    """Read a released Once-For-All MobileNetV3 checkpoint as a super-network of ``space``.

    Width and number of classes follow from the tensors' shapes. With another number of ``classes`` the
    network gets a new classifier, drawn from ``seed``. Only tensors are unpickled, never other objects.

    Returns the super-network in evaluation mode on the CPU, and its description.

    Raises:
        UserError: a space with other parts than Once-For-All's, or a file that is no such checkpoint: not
            PyTorch's, with objects besides tensors, or with tensors that fit none of the space's widths.
    """
    _check_space(space)
    where = f"checkpoint {path}"
    state = _read(path, where)
    held = _classes(state, where)
    width = _width(state, space, held, where)
    _check_values(state, where)
    supernet = SuperNetwork(space, width, held)
    names = _released_names(supernet)
    load_state(supernet, {ours: state[theirs] for theirs, ours in names.items()}, where)
    recipe = f"Once-For-All checkpoint, sha256 {sha256(path)}"
    if classes is not None and classes != held:
        supernet = supernet.with_classes(classes, seed)
        recipe += f", new classifier for {classes} classes, seed {seed}"
    known = supernet.classes == held == IMAGENET_CLASSES
    info = SuperNetworkInfo(
        space=supernet.space,
        width=width,
        classes=supernet.classes,
        data="imagenet" if known else "",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        phases=("imported",),
        recipe=recipe,
    )
    return supernet.eval(), info


def _check_space(space: SearchSpace) -> None:
    if space.kernels != KERNELS:
        has = f"kernels {', '.join(map(str, space.kernels))} instead of 3, 5, 7"
    elif space.exits != "final":
        has = "early exits"
    elif space.dense_skips:
        has = "dense skips"
    elif space.parallel_branches:
        has = "parallel branches"
    else:
        return
    raise UserError(
        f"space '{space.name}' has {has}, for which a Once-For-All checkpoint holds no weights; "
        "use the space ofa-mbv3"
    )


def _read(path: Path, where: str) -> dict[str, Tensor]:
    """The checkpoint's tensors under their newest names."""
    held = _unpickled(path, where)
    if isinstance(held, dict) and "state_dict" in held:
        held = held["state_dict"]
    if not isinstance(held, dict) or not held:
        raise UserError(f"{where} holds no state dict of tensors; save the network's state_dict()")
    state: dict[str, Tensor] = {}
    for key, tensor in held.items():
        name = _newest_spelling(str(key))
        if not isinstance(tensor, Tensor):
            raise UserError(
                f"{where}: '{key}' is of type {type(tensor).__name__}, not a tensor; "
                "save the network's state_dict()"
            )
        if name in state:
            raise UserError(f"{where} holds {name} twice, in two spellings; remove one")
        state[name] = tensor
    return state


def _unpickled(path: Path, where: str) -> Any:
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is in the file: the errors below say it
            _check_sums(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror or error}") from error
    except Exception as error:  # of nearly any kind, where a file holds anything
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise UserError(
                f"{where} holds {refused[1]}, and of pickled objects only tensors are read, for safety; "
                "save the network's state_dict() alone"
            ) from error
        raise UserError(f"{where} is no whole PyTorch file of tensors; download or save it again") from error


def _check_sums(path: Path) -> None:
    """Check the sums that PyTorch writes, and does not look at; files of its older format have none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as held:
            # All are 0 where `torch.serialization.set_crc32_options` left them out.
            if any(member.CRC for member in held.infolist()) and (damaged := held.testzip()) is not None:
                raise ValueError(f"{damaged} is damaged")


def _newest_spelling(name: str) -> str:
    name = name.removeprefix("module.")  # from DataParallel
    for old, new in _SPELLINGS:
        name = name.replace(old, new)
    return name


def _classes(state: dict[str, Tensor], where: str) -> int:
    tensor = state.get(_CLASSIFIER)
    if tensor is None or tensor.dim() != 2 or not 1 <= len(tensor) <= 100_000:
        has = f"no tensor {_CLASSIFIER}" if tensor is None else f"{_CLASSIFIER} of shape {list(tensor.shape)}"
        raise UserError(
            f"{where} has {has}, so it is no Once-For-All MobileNetV3 super-network; give such a file"
        )
    return len(tensor)


def _width(state: dict[str, Tensor], space: SearchSpace, classes: int, where: str) -> float:
    """The width of the space whose tensors have the checkpoint's names and shapes."""
    misfits: dict[float, list[str]] = {}
    for width in space.widths:
        with torch.device("meta"):  # shapes alone
            wanted = SuperNetwork(space, width, classes)
        shapes = wanted.state_dict()
        names = _released_names(wanted)
        misfits[width] = _misfits(state, {theirs: shapes[ours].shape for theirs, ours in names.items()})
        if not misfits[width]:
            return width
    nearest = min(misfits, key=lambda width: len(misfits[width]))
    first, *others = misfits[nearest]
    more = f" (and {len(others)} more such)" if others else ""
    raise UserError(
        f"{where} fits space '{space.name}' at no width: at {nearest:g}, the nearest, it {first}{more}; "
        "give the space that it was trained on, or download it again"
    )


def _misfits(state: dict[str, Tensor], wanted: dict[str, Size]) -> list[str]:
    lacks = [f"lacks tensor {name}" for name in wanted if name not in state]
    adds = [f"has a tensor {name} too many" for name in state if name not in wanted]
    differs = [
        f"has {name} of shape {list(state[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    return [*lacks, *adds, *differs]


def _check_values(state: dict[str, Tensor], where: str) -> None:
    for name, tensor in state.items():
        if name.endswith(_COUNTER):
            continue
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in _FLOATS:
            what = f"no plain floating-point numbers ({tensor.dtype})"
        elif not tensor.float().isfinite().all():  # as it will be held
            what = "values that are not finite in 32 bits"
        elif name.endswith(_VARIANCE) and tensor.min() < 0:
            what = "a variance below 0"
        else:
            continue
        raise UserError(f"{where}: {name} holds {what}; download or save it again")


def _released_names(supernet: SuperNetwork) -> dict[str, str]:
    """Once-For-All's name of each tensor, newest spelling, and ours. Their blocks are numbered through."""
    space = supernet.space
    layers = [f"stages.{s}.{d}" for s in range(len(space.stages)) for d in range(space.max_depth)]
    modules = {f"stem.0.{ours}": theirs for ours, theirs in _STEM.items()}
    for number, block in enumerate(["stem.1", *(f"{layer}.residual.full" for layer in layers)]):
        modules |= {f"{block}.{ours}": f"blocks.{number}.conv.{theirs}" for ours, theirs in _BLOCK.items()}
    modules |= {f"exits.{len(space.stages)}.{ours}": theirs for ours, theirs in _EXIT.items()}
    names = {}
    for ours in supernet.state_dict():
        module, _, leaf = ours.rpartition(".")
        if module.endswith(".transforms"):
            depthwise = modules[module.replace(".transforms", ".full.depthwise")]
            names[f"{depthwise}.{leaf}_matrix"] = ours
        else:
            names[f"{modules[module]}.{leaf}"] = ours
    return names
