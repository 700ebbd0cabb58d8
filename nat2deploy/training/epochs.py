"""What a training did in each of its epochs, and when it is not worth another one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nat2deploy.files import read_json, write_json
from nat2deploy.training.exits import JudgedExits
from nat2deploy.training.loop import EpochDone


@dataclass(frozen=True)
class Epoch:
    """An epoch of a fine-tuning; the last one of a phase may be a part of one.

    Attributes:
        phase: 1, or 2 of two.
        epoch: how many are done, in this phase.
        learning_rate: of the epoch's last step.
        training_loss: the mean over the epoch's steps of what is made small: with label smoothing, with what
            the teacher says, and of several exits weighted.
        top1: on the validation split with all exits on, a share; None where that was not judged.
        loss: the cross-entropy there.
    """

    phase: int
    epoch: float
    learning_rate: float
    training_loss: float
    top1: float | None = None
    loss: float | None = None

    def with_validation(self, judged: JudgedExits) -> Epoch:
        """The same, with what was found on the validation split."""
        return replace(self, top1=judged.whole.top1, loss=judged.whole.loss)


class EpochRecord:
    """Keeps what each epoch of a phase did.

    Args:
        phase: 1, or 2 of two.
        judge: called after each epoch, to judge the network on the validation split; None: not judged.
    """

    def __init__(self, phase: int, judge: Callable[[], JudgedExits] | None = None) -> None:
        self.phase = phase
        self.judge = judge
        self.epochs: list[Epoch] = []
        self.judged: list[JudgedExits] = []

    @property
    def stop(self) -> bool:
        """Never: training takes as many epochs as it was told to."""
        return False

    def epoch_done(self, done: EpochDone) -> None:
        """Keep an epoch, judged where that is asked for."""
        epoch = Epoch(self.phase, done.epochs, done.learning_rate, done.loss)
        if self.judge is not None:
            judged = self.judge()
            self.judged.append(judged)
            epoch = epoch.with_validation(judged)
        self.epochs.append(epoch)

    def state(self) -> str:
        """All epochs."""
        return json.dumps(self._to_json())

    def restore(self, state: str) -> None:
        """Go on behind these epochs."""
        self._read(json.loads(state))

    def _to_json(self) -> dict[str, Any]:
        return {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "judged": [row.to_json() for row in self.judged],
        }

    def _read(self, value: dict[str, Any]) -> None:
        self.epochs = [Epoch(**epoch) for epoch in value["epochs"]]
        self.judged = [JudgedExits.from_json(row) for row in value["judged"]]


class PatientRecord(EpochRecord):
    """Ends a first phase when the validation accuracy has not risen for a while.

    What it found is written to a file then, so that a second phase need not wait for it again.

    Args:
        judge: as of ``EpochRecord``.
        patience: how many epochs without gain end the phase.
        most: epochs of the phase.
        found: the file; what was written there under the same ``tag`` is gone on with.
        tag: names weights and settings.
    """

    def __init__(
        self, judge: Callable[[], JudgedExits], *, patience: int, most: int, found: Path, tag: str
    ) -> None:
        super().__init__(1, judge)
        self.patience = patience
        self.most = most
        self.found = found
        self.tag = tag
        if found.exists():
            value = read_json(found, "first phase")
            if value["tag"] == tag:
                self._read(value)

    @property
    def best(self) -> int:
        """The epoch, from 1, with the highest accuracy of all exits together; then the lowest loss."""
        keys = [(row.whole.top1, -row.whole.loss) for row in self.judged]
        return 1 + keys.index(max(keys))

    @property
    def stop(self) -> bool:
        """Whether the best epoch is known."""
        done = len(self.judged)
        return done >= self.most or (done > 0 and done - self.best >= self.patience)

    def epoch_done(self, done: EpochDone) -> None:
        """Keep and judge an epoch."""
        super().epoch_done(done)
        if self.stop:
            write_json(self.found, {"tag": self.tag, **self._to_json()})
