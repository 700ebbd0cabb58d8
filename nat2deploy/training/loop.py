"""The one training loop: deterministic for a seed, and resumable at the step."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from nat2deploy.data.batches import batch_count, batches
from nat2deploy.data.sets import ImageData, Split
from nat2deploy.errors import UserError, out_of_memory
from nat2deploy.files import write_bytes
from nat2deploy.training.distributed import ALONE, World
from nat2deploy.training.memory import keep_freed_memory
from nat2deploy.training.optimisers import EagerAdamW, EagerSGD

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, running loss)."""


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast: rates follow a linear warm-up, then a cosine to ``final_rate``.

    ``ema``: decay of an average of the weights, which the loop ends with. ``mixed_precision``: bfloat16
    where the ``device`` has it; on CPUs it is slower, and left off.
    """

    epochs: float
    learning_rate: float
    batch_size: int = 128
    warmup_epochs: float = 0.0
    optimiser: Literal["sgd", "adamw"] = "sgd"
    weight_decay: float = 3e-5
    final_rate: float = 0.0
    clip: float | None = None
    seed: int = 0
    ema: float | None = None
    device: str = "cpu"
    mixed_precision: bool = False


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a training, or what its last one has of one.

    Attributes:
        epochs: done in all.
        learning_rate: of the last step.
        loss: mean over the epoch's steps.
    """

    epochs: float
    learning_rate: float
    loss: float


class Watch(Protocol):
    """Looks at a training after each epoch and may end it; what it remembers travels in the checkpoint."""

    @property
    def stop(self) -> bool:
        """Whether training ends here."""

    def epoch_done(self, done: EpochDone) -> None:
        """Look, after an epoch; the module's weights and modes must be left as they are."""

    def state(self) -> str:
        """What it remembers, as text."""

    def restore(self, state: str) -> None:
        """Remember what ``state`` returned."""


Step = Callable[[Tensor, Tensor, int], Tensor]
"""Given images [B, 3, r, r], targets [B] and the step's number: run backward, return the loss."""


def run_loop(
    module: nn.Module,
    step: Step,
    settings: LoopSettings,
    data: ImageData,
    *,
    resolution: Callable[[int], int],
    checkpoint: Path | None = None,
    keep: bool = False,
    tag: str = "",
    save_every_s: float = 60.0,
    progress: Progress | None = None,
    split: Split | None = None,
    time_limit_s: float = math.inf,
    world: World = ALONE,
    watch: Watch | None = None,
) -> int:
    """Train ``module`` in place on the training split and return the number of steps done.

    ``resolution(step)`` says each batch's size in pixels. With a ``checkpoint`` the loop goes on where a
    killed one of the same ``tag`` was; the file is removed at the end. The result is the same either way.
    With ``keep`` the file holds the trained ``module`` then: where the caller is killed before it has stored
    what it makes of that, the next loop trains no step. The caller removes it.

    A ``watch`` is asked after each epoch and at the end, and a checkpoint is written then.

    The processes of a ``world`` call this together: each ``step`` gets its part of the batch, and all end
    with the same weights. The first one alone writes the checkpoint and tells its ``progress``.

    Raises:
        UserError: the loss is no longer finite, the checkpoint cannot be read, or a batch does not divide
            evenly among the processes.
    """
    keep_freed_memory()
    split = data.train if split is None else split
    per_epoch = batch_count(split, settings.batch_size, drop_last=True)
    if per_epoch == 0:
        raise UserError(f"{len(split)} training images are fewer than one batch of {settings.batch_size}")
    total = max(1, round(settings.epochs * per_epoch))
    warmup = round(settings.warmup_epochs * per_epoch)
    # Depthwise convolutions run about twice as fast on CPUs in this layout.
    module.to(settings.device).to(memory_format=torch.channels_last)
    optimiser = _optimiser(module, settings)
    # Where it is trained makes no difference by intent, but for bfloat16, which not every device has.
    anywhere = settings if settings.mixed_precision else replace(settings, device="cpu")
    tag = f"{tag}/{anywhere}/{split.fingerprint()}"
    average = None if settings.ema is None else WeightAverage(module, settings.ema)
    start, lost = _restore(checkpoint, tag, module, optimiser, average, watch)
    world.expect_same(start, "steps done")
    saved = began = time.monotonic()
    running = math.nan
    module.train()
    precision = torch.autocast(
        torch.device(settings.device).type,
        torch.bfloat16,
        enabled=settings.mixed_precision and torch.device(settings.device).type != "cpu",
    )
    done = start
    for index, images, targets in _stream(split, data, settings, resolution, start, total, per_epoch):
        if watch is not None and watch.stop:
            break
        rate = _rate(index, total, warmup, settings)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        images, targets = world.share(images, targets)
        images = images.to(settings.device, memory_format=torch.channels_last)
        with precision, world.whole_batch():
            loss = float(step(images, targets.to(settings.device), index).detach())
        loss = world.average(loss)
        if not math.isfinite(loss):
            raise UserError(f"training diverged at step {index} (loss {loss}); lower the learning rate")
        world.average_gradients(module)
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
        optimiser.step()
        if average is not None:
            average.update(module)
        done = index + 1
        lost += loss
        running = loss if math.isnan(running) else 0.95 * running + 0.05 * loss
        if progress is not None and world.is_first:
            progress(done, total, running)
        now = time.monotonic()
        due = now - saved > save_every_s
        if done % per_epoch == 0 or done == total:
            if watch is not None:
                _check_finite(module, done)  # nobody keeps what broken weights are judged as
                watch.epoch_done(EpochDone(done / per_epoch, rate, lost / (index % per_epoch + 1)))
                due = True
            lost = 0.0
        if checkpoint is not None and world.is_first and due and done < total:
            _check_finite(module, done)
            _save(checkpoint, tag, done, lost, module, optimiser, average, watch)
            saved = now
        if time_limit_s < math.inf and world.first_says(now - began > time_limit_s):
            break
    if average is not None:
        average.copy_to(module)
    _check_finite(module, done)  # the last step's loss is of the weights before it
    if checkpoint is not None and world.is_first:
        if not keep:
            checkpoint.unlink(missing_ok=True)
        elif done > start:
            _save(checkpoint, tag, done, lost, module, optimiser, average, watch)
    world.barrier()
    return done


def _check_finite(module: nn.Module, done: int) -> None:
    """Gradients may become infinite or NaN while the loss is finite; such weights are never kept."""
    for name, tensor in module.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"training diverged at step {done} ({name} is not finite); lower the learning rate"
            )


class WeightAverage:
    """An exponential moving average of a module's parameters; ``decay`` is lower in the first steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self, module: nn.Module) -> None:
        """Take the module's present weights in."""
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                self.weights[name].lerp_(parameter, rate)

    def copy_to(self, module: nn.Module) -> None:
        """Replace the module's weights by the average."""
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(self.weights[name])


def _stream(
    split: Split,
    data: ImageData,
    settings: LoopSettings,
    resolution: Callable[[int], int],
    start: int,
    total: int,
    per_epoch: int,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    index = start
    while index < total:
        epoch, within = divmod(index, per_epoch)
        counter = iter(range(index, total))
        for images, targets in batches(
            split,
            batch_size=settings.batch_size,
            resolution=lambda counter=counter: resolution(next(counter)),  # type: ignore[misc]
            normalisation=data.normalisation,
            shuffle_seed=settings.seed * 100_003 + epoch,
            augment=data.augment,
            drop_last=True,
            start=within,
        ):
            yield index, images, targets
            index += 1
            if index >= total:
                return


def _rate(index: int, total: int, warmup: int, settings: LoopSettings) -> float:
    if index < warmup:
        return settings.learning_rate * (index + 1) / warmup
    share = (index - warmup) / max(1, total - warmup)
    span = settings.learning_rate - settings.final_rate
    return settings.final_rate + span * 0.5 * (1 + math.cos(math.pi * share))


def _optimiser(module: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """No weight decay on biases and BN (Once-For-All's released code)."""
    decayed = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if settings.optimiser == "adamw":
        return EagerAdamW(groups, lr=settings.learning_rate)
    return EagerSGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)


def _save(
    path: Path,
    tag: str,
    done: int,
    lost: float,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    watch: Watch | None,
) -> None:
    state = {
        "tag": tag,
        "done": done,
        "lost": lost,
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "average": None if average is None else (average.steps, average.weights),
        "watch": None if watch is None else watch.state(),
    }
    content = io.BytesIO()  # on a full disk PyTorch's own writing of files raises what is no OSError
    torch.save(state, content)
    write_bytes(path, content.getvalue())


def _restore(
    path: Path | None,
    tag: str,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    watch: Watch | None,
) -> tuple[int, float]:
    """Load a checkpoint of the same tag; return its step and the epoch's losses until there, added up."""
    if path is None or not path.exists():
        return 0, 0.0
    try:
        # Not to the device it was saved from, which is another process's GPU.
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["tag"] != tag:
            return 0, 0.0
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        if average is not None:
            average.steps, weights = state["average"]
            average.weights = {name: weights[name].to(held) for name, held in average.weights.items()}
        if watch is not None:
            watch.restore(state["watch"])
        # Older versions wrote no losses; what a watch is told of that epoch then lacks its first steps.
        return int(state["done"]), float(state.get("lost", 0.0))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UserError(
            f"checkpoint {path} cannot be read ({error}); delete it to start this phase anew"
        ) from error
