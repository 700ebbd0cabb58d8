"""The learning curve of a super-network: its smallest, largest and random sub-networks over the epochs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.files import read_text, write_atomic, write_text
from nat2deploy.space.encoding import IntegerEncoding
from nat2deploy.space.sampling import random_architectures
from nat2deploy.supernet.several_widths import AnySuperNetwork
from nat2deploy.training.evaluation import SubNetworkEvaluator


@dataclass(frozen=True)
class CurvePoint:
    """Validation accuracies with inherited weights after ``epochs`` in all, at the space's last resolution.

    ``random`` are those of the same random sub-networks at every point.
    """

    epochs: float
    phase: str
    smallest: float
    largest: float
    random: tuple[float, ...]


class LearningCurve:
    """Judges a super-network as it learns, into a folder.

    ``curve.jsonl`` holds a point a line, ``events.out.tfevents.*`` the same for TensorBoard, ``curve.png``
    a picture. A point at an epoch that the file has already, of a training that was killed, replaces it and
    what came after. Each line names its ``training``; points of two do not mix.

    Raises:
        UserError: the ``curves`` extra is not installed, or ``curve.jsonl`` cannot be read or is of another
            training.
    """

    def __init__(
        self,
        folder: Path,
        data: ImageData,
        *,
        seed: int,
        training: str = "",
        networks: int = 4,
        images: int = 1000,
    ) -> None:
        try:
            import matplotlib  # noqa: F401
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"a learning curve needs {error.name}; pip install 'nat2deploy[curves]', or leave --curve out"
            ) from error
        self.folder = folder
        self.seed = seed
        self.training = training
        self.networks = networks
        self.evaluator = SubNetworkEvaluator(
            data, seed=seed, recalibration_images=images, validation_images=images
        )
        self.points = _read(folder / "curve.jsonl", training)

    def record(self, supernet: AnySuperNetwork, phase: str, epochs: float) -> CurvePoint:
        """Judge the super-network after ``epochs`` in all and write the files; its mode is left as it was."""
        space = supernet.space.restrict(resolutions=supernet.space.resolutions[-1:])
        chosen = random_architectures(
            IntegerEncoding(space), np.random.default_rng([self.seed, 11]), self.networks
        )
        found = [
            self.evaluator(supernet, architecture).top1
            for architecture in (space.smallest(), space.largest(), *chosen)
        ]
        point = CurvePoint(round(epochs, 4), phase, found[0], found[1], tuple(found[2:]))
        self.points = [*(p for p in self.points if p.epochs < point.epochs), point]
        lines = "".join(json.dumps({**asdict(p), "training": self.training}) + "\n" for p in self.points)
        write_text(self.folder / "curve.jsonl", lines)
        self._write_events()
        self._draw()
        return point

    def _write_events(self) -> None:
        """Write every point anew: TensorBoard's files only grow, and a resumed training goes back."""
        from torch.utils.tensorboard import SummaryWriter

        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(self.folder)) as writer:
            for step, point in enumerate(self.points):
                values = {
                    "smallest": point.smallest,
                    "largest": point.largest,
                    "random": float(np.mean(point.random)),
                }
                for name, value in values.items():
                    writer.add_scalar(f"top1/{name}", value, step)
                writer.add_scalar("epochs", point.epochs, step)

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        figure: Any = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        epochs = [point.epochs for point in self.points]
        axes.plot(epochs, [100 * p.largest for p in self.points], "o-", label="largest")
        axes.plot(epochs, [100 * p.smallest for p in self.points], "o-", label="smallest")
        low, high = ([100 * pick(p.random) for p in self.points] for pick in (min, max))
        axes.fill_between(epochs, low, high, alpha=0.25, color="grey", label=f"{self.networks} random")
        changes = [
            (a.epochs + b.epochs) / 2
            for a, b in zip(self.points, self.points[1:], strict=False)
            if a.phase != b.phase
        ]
        for change in changes:
            axes.axvline(change, color="lightgrey", linewidth=0.8, zorder=0)
        axes.set(xlabel="epochs", ylabel="validation top-1 (%)", title="inherited weights, BN recalibrated")
        axes.legend(loc="lower right")
        write_atomic(
            self.folder / "curve.png", lambda temporary: figure.savefig(temporary, format="png", dpi=120)
        )


def _read(path: Path, training: str) -> list[CurvePoint]:
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in read_text(path, "learning curve").splitlines()]
        # Older versions did not say whose points they are.
        whose = {line.pop("training", training) for line in lines}
        points = [CurvePoint(**{**line, "random": tuple(line["random"])}) for line in lines]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"learning curve {path} cannot be read ({error}); move it away") from error
    if whose - {training}:
        raise UserError(
            f"learning curve {path} is of another training; choose another folder, or move it away"
        )
    return points
