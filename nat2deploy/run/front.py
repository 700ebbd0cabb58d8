"""``front.json``: what a search returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from nat2deploy.errors import UserError
from nat2deploy.files import parse, read_json, write_json
from nat2deploy.precision import Precision


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(_Model):
    """A latency measured on the device, in ms, with the 95 % confidence interval of the median."""

    median_ms: float
    p95_ms: float
    p99_ms: float
    ci_low_ms: float
    ci_high_ms: float
    samples: int


class FrontNetwork(_Model):
    """One network of the front.

    ``top1`` is the validation accuracy with inherited weights; ``costs`` are predicted, by metric.
    ``feasible`` says whether every budget is kept, by measured latencies where there are some.
    ``high_tradeoff``: one of the front's knees, which lose most for what any neighbour gains.
    """

    id: str
    architecture: dict[str, Any]
    top1: float
    costs: dict[str, float]
    measured: Measured | None = None
    measured_on: dict[str, Measured] = {}
    """Of a search for several targets, by the target's name."""
    feasible: bool
    high_tradeoff: bool = False

    @property
    def precision(self) -> Precision | None:
        """The number format that was chosen for it, where there was a choice."""
        precision: Precision | None = self.architecture.get("precision")
        return precision


class Front(_Model):
    """The non-dominated networks within the budgets, cheapest first."""

    schema_version: int = 1
    space: str
    data: str
    budgets: tuple[str, ...]
    objectives: tuple[str, ...]
    rounds: int
    evaluations: int
    complete: bool
    hypervolume: float | None
    note: str = ""
    networks: tuple[FrontNetwork, ...]

    @property
    def best(self) -> FrontNetwork | None:
        """The most accurate feasible network."""
        return max((n for n in self.networks if n.feasible), key=lambda n: n.top1, default=None)

    def choose(self, wanted: str) -> FrontNetwork:
        """The network of an id (or the start of one), or ``best``.

        Raises:
            UserError: no such network, several, or no feasible one.
        """
        if wanted == "best":
            if self.best is None:
                raise UserError(
                    "the front holds no network within the budgets; search longer or raise a budget"
                )
            return self.best
        matches = [n for n in self.networks if wanted and n.id.startswith(wanted)]
        if len(matches) != 1:
            have = ", ".join(n.id for n in self.networks)
            what = "no network" if not matches else "several networks"
            raise UserError(f"{what} '{wanted}' in the front; choose from best, {have}")
        return matches[0]


def load_front(path: Path) -> Front:
    """Read ``front.json``.

    Raises:
        UserError: missing or broken.
    """
    if not path.exists():
        raise UserError(f"no front at {path}; run `nat2deploy search` first")
    return parse(Front, read_json(path, "front"), f"front {path}")


def current_front(path: Path) -> Front:
    """Read ``front.json`` for what comes after the search.

    Raises:
        UserError: missing or broken, or older than the archive: its search was stopped, and went on since.
    """
    front = load_front(path)
    if front.complete:
        return front
    judged = _judged(path.with_name("archive.jsonl"))
    if judged > front.evaluations + 1:  # where Ctrl-C came in the middle of writing one, it is not counted
        raise UserError(
            f"front {path} is older than the run: it is of {front.evaluations} evaluations, and the search "
            f"has gone on since to {judged}; repeat the search's command, or let it end: it writes the front "
            "anew"
        )
    return front


def _judged(archive: Path) -> int:
    """How many evaluations of an archive were work, see ``search.archive``; half a line may be among them."""
    try:
        lines = archive.read_bytes().splitlines()
    except OSError:
        return 0
    return sum(b'"passed_by":' not in line and b'"taken_over":' not in line for line in lines)


def save_front(front: Front, path: Path) -> None:
    """Write ``front.json`` atomically."""
    write_json(path, front.model_dump(mode="json"))
