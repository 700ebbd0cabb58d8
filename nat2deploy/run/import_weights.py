"""The front door of imported weights: a released checkpoint becomes a super-network file."""

from __future__ import annotations

from pathlib import Path

from nat2deploy.errors import UserError
from nat2deploy.space.search_space import load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, save_supernet, supernet_info
from nat2deploy.supernet.once_for_all import import_once_for_all


def import_weights(
    checkpoint: Path, space_name: str, out: Path, *, classes: int | None = None, seed: int = 0
) -> SuperNetworkInfo:
    """Write a released Once-For-All checkpoint as a super-network to ``out``.

    Another number of ``classes`` than the checkpoint's brings a new classifier, drawn from ``seed``.

    Raises:
        UserError: an input that cannot be used, or another super-network at ``out``.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: a super-network is a .safetensors file; add that ending")
    supernet, info = import_once_for_all(checkpoint, load_space(space_name), classes, seed)
    if out.exists() and supernet_info(out) != info:
        raise UserError(f"{out} is another super-network; choose another --out or remove it")
    save_supernet(out, supernet, info)
    return info
