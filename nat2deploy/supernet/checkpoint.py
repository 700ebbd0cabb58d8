"""Super-networks and plain networks as safetensors files that say what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nat2deploy.errors import UserError
from nat2deploy.files import parse, write_bytes
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.supernet.several_widths import AnySuperNetwork, side_by_side

_KEY = "nat2deploy"


class SuperNetworkInfo(BaseModel):
    """What a super-network file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    space: SearchSpace
    width: float
    more_widths: tuple[float, ...] = ()
    """Widths of further super-networks in the file; all are in ascending order."""
    classes: int = Field(ge=1, le=100_000)
    version: int = 0
    """Counts adaptations; an accuracy is known only together with it."""
    data: str = ""
    labels: tuple[str, ...] = ()
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    phases: tuple[str, ...] = ()
    """Training phases behind the weights, oldest first."""
    recipe: str = ""
    """How they were trained, so that a resumed training knows its own file."""

    @property
    def widths(self) -> tuple[float, ...]:
        """The widths of all super-networks in the file."""
        return (self.width, *self.more_widths)

    @model_serializer(mode="wrap")
    def _as_before_where_there_is_one(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A file of a single super-network says what it always said."""
        value: dict[str, Any] = write(self)
        if not self.more_widths:
            value.pop("more_widths", None)
        return value


def save_tensors(path: Path, state: dict[str, Tensor], metadata: str) -> None:
    """Write tensors and one JSON text to a safetensors file, atomically."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_bytes(path, save(tensors, {_KEY: metadata}))  # its own writing of files raises what is no OSError


def read_metadata(path: Path, what: str) -> str:
    """Return the JSON text that a safetensors file of ours carries.

    Raises:
        UserError: missing, not safetensors, or not ours.
    """
    _, metadata = _open(path, what, tensors=False)
    return metadata


def load_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], str]:
    """Read the tensors and the JSON text of a safetensors file of ours.

    Raises:
        UserError: missing, not safetensors, or not ours.
    """
    return _open(path, what, tensors=True)


def _open(path: Path, what: str, *, tensors: bool) -> tuple[dict[str, Tensor], str]:
    if not path.is_file():
        raise UserError(f"no {what} at {path}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()} if tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{what} {path} is no whole safetensors file ({error}); make it again") from error
    if _KEY not in metadata:
        raise UserError(f"{what} {path} was not written by nat2deploy; make one with `nat2deploy train`")
    return state, str(metadata[_KEY])


def load_state(module: nn.Module, state: dict[str, Tensor], where: str, *, mapped: bool = False) -> None:
    """Load tensors into a module; ``mapped``: the module takes the tensors themselves, no copies.

    Raises:
        UserError: names or shapes differ.
    """
    try:
        module.load_state_dict(state, assign=mapped)
    except RuntimeError as error:
        raise UserError(f"{where}: the weights do not fit the network it describes; make it again") from error


def save_supernet(path: Path, supernet: AnySuperNetwork, info: SuperNetworkInfo) -> None:
    """Write a super-network, or those of several widths, with the description, atomically."""
    save_tensors(path, supernet.state_dict(), info.model_dump_json())


def supernet_info(path: Path) -> SuperNetworkInfo:
    """Read a super-network file's description without its weights.

    Raises:
        UserError: missing, broken, or not a super-network of ours.
    """
    return _info(read_metadata(path, "super-network"), path)


def load_supernet(path: Path, *, mapped: bool = False) -> tuple[AnySuperNetwork, SuperNetworkInfo]:
    """Read a super-network, or those of several widths, in evaluation mode on the CPU.

    With ``mapped`` its weights are the file's pages, which processes share as long as none changes them.

    Raises:
        UserError: missing, broken, or not a super-network of ours.
    """
    state, metadata = load_tensors(path, "super-network")
    info = _info(metadata, path)
    supernet = side_by_side([SuperNetwork(info.space, width, info.classes) for width in info.widths])
    load_state(supernet, state, f"super-network {path}", mapped=mapped)
    return supernet.eval(), info


def _info(metadata: str, path: Path) -> SuperNetworkInfo:
    try:
        value = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise UserError(f"super-network {path}: broken description; make it again") from error
    return parse(SuperNetworkInfo, value, f"super-network {path}")
