"""One sub-network as a safetensors file that says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from nat2deploy.blocks import SubNetwork
from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.space.architecture import Architecture
from nat2deploy.space.lowering import plan_network
from nat2deploy.space.parsing import parse_architecture
from nat2deploy.space.search_space import SearchSpace
from nat2deploy.supernet.checkpoint import load_state, load_tensors, save_tensors


class NetworkInfo(BaseModel):
    """What a sub-network file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    space: SearchSpace
    architecture: dict[str, Any]
    data: str
    labels: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def choice(self) -> Architecture:
        """The architecture as an object."""
        return parse_architecture(self.space, self.architecture)


def save_network(path: Path, network: SubNetwork, info: NetworkInfo) -> None:
    """Write a sub-network with its description, atomically."""
    save_tensors(path, network.state_dict(), info.model_dump_json())


def load_network(path: Path) -> tuple[SubNetwork, NetworkInfo]:
    """Read a sub-network in evaluation mode.

    Raises:
        UserError: missing, broken, or not a sub-network of ours.
    """
    state, metadata = load_tensors(path, "network")
    try:
        value = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise UserError(f"network {path}: broken description; make it again") from error
    info = parse(NetworkInfo, value, f"network {path}")
    network = SubNetwork(plan_network(info.space, info.choice, len(info.labels)))
    load_state(network, state, f"network {path}")
    network.eval()
    return network, info
