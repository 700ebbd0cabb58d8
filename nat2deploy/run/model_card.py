"""A super-network's model card: what it is, how it was trained, what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nat2deploy.files import write_text
from nat2deploy.run.evaluate import EvaluatedNetwork
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, supernet_info
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.version import __version__


def write_model_card(
    path: Path, supernet: str, found: Sequence[EvaluatedNetwork], data: str, split: str
) -> None:
    """Write a Markdown model card of a super-network that was judged on a split of ``data``.

    Raises:
        UserError: no such super-network, or the card cannot be written.
    """
    file = find_supernet(supernet)
    text = model_card(file.stem, supernet_info(file), found, data, split)
    write_text(path, text)


def model_card(
    name: str, info: SuperNetworkInfo, found: Sequence[EvaluatedNetwork], data: str, split: str
) -> str:
    """Return the card as Markdown."""
    space = info.space
    drawn = [network for network in found if network.role == "random"]
    top1 = np.array([network.top1 for network in drawn])
    resolutions = ", ".join(map(str, space.resolutions))
    widths = " and ".join(f"{width:g}" for width in info.widths)
    lines = [
        f"# {name}",
        "",
        f"A super-network of the space `{space.name}` at {resolutions} pixels and width {widths}, for "
        f"image classification: a source of sub-networks for `nat2deploy search`, on its own data set or, "
        f"by transfer, on another.",
        "",
        "## Training",
        "",
        f"- Data: {info.data}, the training split; {info.classes} classes: {', '.join(info.labels)}.",
        f"- Pixels in 0 to 1 are normalised with mean {_numbers(info.mean)} and deviation "
        f"{_numbers(info.std)}.",
        f"- Phases: {', '.join(info.phases)}.",
        f"- Settings: `{info.recipe}`.",
        "",
        f"## Accuracy on the {split} split of {data}, {found[0].images} images",
        "",
        "With inherited weights and batch-norm statistics recomputed on at most 2,000 training images; "
        "nothing was fine-tuned.",
        "",
        "| sub-network | top-1 | MACs | params |",
        "|---|---|---|---|",
        *(_row(network) for network in found if network.role != "random"),
        f"| {len(drawn)} random, mean | {top1.mean():.2%} | {np.mean([n.macs for n in drawn]) / 1e6:.2f}M | "
        f"{np.mean([n.params for n in drawn]) / 1e3:.0f}k |",
        f"| worst and best of them | {top1.min():.2%}, {top1.max():.2%} | | |",
        "",
        "All of them:",
        "",
        "| id | top-1 | MACs | params | architecture |",
        "|---|---|---|---|---|",
        *(
            f"| `{n.id}` | {n.top1:.2%} | {n.macs / 1e6:.2f}M | {n.params / 1e3:.0f}k | {n.architecture} |"
            for n in sorted(drawn, key=lambda n: n.macs)
        ),
        "",
        f"Written by nat2deploy {__version__}.",
        "",
    ]
    return "\n".join(lines)


def _row(network: EvaluatedNetwork) -> str:
    return (
        f"| {network.role} | {network.top1:.2%} | {network.macs / 1e6:.2f}M | {network.params / 1e3:.0f}k |"
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
