"""The front door of super-network training."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

import torch

from nat2deploy.data.load import load_data
from nat2deploy.data.sets import ImageData
from nat2deploy.errors import UserError
from nat2deploy.files import check_writable, sha256
from nat2deploy.locks import holding
from nat2deploy.progress import Report, silent
from nat2deploy.run.config import SpaceConfig, TrainConfig
from nat2deploy.space.search_space import SearchSpace, load_space
from nat2deploy.supernet.checkpoint import SuperNetworkInfo, load_supernet, supernet_info
from nat2deploy.supernet.network import SuperNetwork
from nat2deploy.supernet.several_widths import AnySuperNetwork, networks_of
from nat2deploy.supernet.shipped import find_supernet
from nat2deploy.training.curve import LearningCurve
from nat2deploy.training.distributed import World, world
from nat2deploy.training.schedule import Phase, make_schedule
from nat2deploy.training.supernet import ShrinkingSettings, Watch, clear, train_supernet

_POINTS_A_PHASE = 3


def train(
    space_config: SpaceConfig,
    data_spec: str,
    config: TrainConfig,
    out: Path,
    *,
    seed: int = 0,
    report: Report = silent,
) -> SuperNetworkInfo:
    """Train a super-network by progressive shrinking and write it to ``out``; goes on where it was killed.

    A finished file of the same settings is left as it is. Where ``torchrun`` started several processes, all
    call this: they share each batch, and the result is that of one process up to rounding.

    Raises:
        UserError: an input that cannot be used, a file of other settings at ``out``, another process that
            trains it, or divergence.
    """
    with world(config.device) as together:
        return _train(space_config, data_spec, config, out, seed, report, together)


def _train(
    space_config: SpaceConfig,
    data_spec: str,
    config: TrainConfig,
    out: Path,
    seed: int,
    report: Report,
    together: World,
) -> SuperNetworkInfo:
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: a super-network is a .safetensors file; add that ending")
    space = load_space(space_config.name).restrict(resolutions=space_config.resolutions)
    width = _width(config, space)
    data = load_data(data_spec, base_resolution=max(space.resolutions))
    phases = make_schedule(config.schedule, space, epochs=config.epochs, learning_rate=config.learning_rate)
    supernet, before, origin = _start(config, space, width, data, seed)
    info = SuperNetworkInfo(
        space=supernet.space,
        width=width,
        classes=data.classes,
        data=data.name,
        labels=data.labels,
        mean=data.mean,
        std=data.std,
        phases=before,
        recipe=_recipe(config, space, width, f" seed {seed}{origin}", out),
    )
    if together.is_first and not out.is_file():
        check_writable(out)
    if out.exists() and supernet_info(out).model_copy(update={"phases": before}) != info:
        raise UserError(f"{out} is a super-network of other settings; choose another --out or remove it")
    done = len(supernet_info(out).phases) - len(before) if out.exists() else 0
    together.expect_same(done, "phases done")
    if done == len(phases):
        if together.is_first:
            clear(out)
        return load_supernet(out)[1]

    def tell(phase: Phase, step: int, steps: int, loss: float) -> None:
        place = f"{phases.index(phase) + 1}/{len(phases)} {phase.name}"
        report(f"train {place}", step, steps, f"loss {loss:.3f}")

    watch = None
    if config.curve is not None and together.is_first:
        check_writable(Path(config.curve) / "curve.jsonl")
        watch = _curve(Path(config.curve), phases, data, seed, info)
    with ExitStack() as held:
        if together.is_first:  # on behalf of all
            busy = f"{out} is being trained by another process; wait for it, or choose another --out"
            held.enter_context(holding(out.with_name(f".{out.name}.lock"), busy))
        _, trained = train_supernet(
            supernet,
            phases,
            data,
            info,
            out,
            ShrinkingSettings(
                batch_size=min(config.batch_size, len(data.train)),
                seed=seed,
                label_smoothing=config.label_smoothing,
                teacher=config.teacher,
                sandwich=config.sandwich,
                ema=config.ema,
                clip=config.clip,
                device=config.device,
                mixed_precision=config.mixed_precision,
            ),
            progress=tell,
            watch=watch,
            world=together,
        )
    return trained


def _width(config: TrainConfig, space: SearchSpace) -> float:
    widths = config.widths or space.widths[:1]
    if len(widths) > 1:
        raise UserError(
            f"[train] width: {len(widths)} widths are given, and a training is of one; give one, or let "
            "`nat2deploy run` train each"
        )
    return widths[0]


def _recipe(config: TrainConfig, space: SearchSpace, width: float, more: str, out: Path) -> str:
    """What is stored of the settings; the file's at ``out`` where only its width is spelled otherwise.

    Where it is trained makes no difference by intent, but to mixed precision; files of before name it.
    """
    spellings: list[float | tuple[float, ...] | None] = [width, (width,)]
    unlike = {"supernet", "start", "curve"}
    if width == space.widths[0]:
        spellings.insert(0, None)
    recipes = [
        config.model_copy(update={"width": one}).model_dump_json(exclude=unlike | places) + more
        for places in ([set()] if config.mixed_precision else [{"device"}, set()])
        for one in spellings
    ]
    held = supernet_info(out).recipe if out.is_file() else ""
    return held if held in recipes else recipes[0]


def _start(
    config: TrainConfig, space: SearchSpace, width: float, data: ImageData, seed: int
) -> tuple[SuperNetwork, tuple[str, ...], str]:
    """Return the weights that training starts from, the phases behind them, and words on their origin."""
    if config.start is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**64)  # PyTorch's are of 64 bits
            return SuperNetwork(space, width, data.classes), (), ""
    path = find_supernet(config.start)
    held, info = load_supernet(path)
    if info.space.fingerprint != space.fingerprint or width not in info.widths:
        raise UserError(
            f"super-network {config.start} is of space '{info.space.name}' at width "
            f"{' and '.join(f'{w:g}' for w in info.widths)}, not "
            f"'{space.name}' at width {width:g}; start from one of the same"
        )
    supernet = networks_of(held)[info.widths.index(width)]
    if supernet.classes != data.classes:
        supernet = supernet.with_classes(data.classes, seed)
    supernet.space = space.restrict(widths=(width,))
    return supernet, info.phases, f" from {sha256(path)}"


def _curve(folder: Path, phases: list[Phase], data: ImageData, seed: int, info: SuperNetworkInfo) -> Watch:
    """Judge the super-network a few times in each phase."""
    training = hashlib.sha256(info.model_dump_json().encode()).hexdigest()[:16]
    curve = LearningCurve(folder, data, seed=seed, training=training)

    def watch(supernet: AnySuperNetwork, phase: Phase, done: int, total: int) -> None:
        if done == total or done % max(1, total // _POINTS_A_PHASE) == 0:
            before = sum(earlier.epochs for earlier in phases[: phases.index(phase)])
            curve.record(supernet, phase.name, before + phase.epochs * done / total)

    return watch
