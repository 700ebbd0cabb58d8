"""The main pictures as PNG files, also shown in the page where scripts do not run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from nat2deploy.report.facts import WITHIN
from nat2deploy.report.payload import Payload, first_axis

BLUE, ORANGE, GREEN, PURPLE, GREY, LIGHT = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#666666", "#BBBBBB"


def draw_pictures(payload: Payload) -> dict[str, bytes]:
    """Return the pictures that the run has data for, by name, as PNG."""
    found = {}
    for name, paint in _PICTURES.items():
        figure = _figure()
        if paint(figure, payload):
            stream = io.BytesIO()
            figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
            found[name] = stream.getvalue()
    return found


def _figure() -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(7.2, 4.2), layout="constrained")


def _front(figure: Any, payload: Payload) -> bool:
    if not payload["axes"] or not payload["front"]:
        return False
    axis, axes = first_axis(payload), figure.subplots()
    key, factor = axis["metric"], axis["factor"]
    rest = [p for p in payload["points"] if key in p["values"]]
    if rest:
        axes.scatter(
            [p["values"][key] * factor for p in rest], _percent(p["top1"] for p in rest),
            s=9, color=LIGHT, label="judged by the search",
        )  # fmt: skip
    front = sorted((p for p in payload["front"] if key in p["values"]), key=lambda p: p["values"][key])
    x = [p["values"][key] * factor for p in front]
    axes.plot(x, _percent(p["top1"] for p in front), "o-", color=BLUE, ms=5, lw=1, label="front (validation)")
    tuned = [p for p in front if p["test"]]
    if tuned:
        axes.scatter(
            [p["values"][key] * factor for p in tuned], _percent(p["test"]["top1"] for p in tuned),
            marker="*", s=120, color=ORANGE, zorder=3, label="fine-tuned (test)",
        )  # fmt: skip
    if axis["limit"] is not None:
        axes.axvline(axis["limit"] * factor, color=GREY, ls="--", lw=1, label="budget")
    axes.set(xlabel=axis["label"], ylabel="top-1 (%)", title="accuracy against cost")
    axes.legend(loc="lower right", fontsize="small")
    return True


def _latency(figure: Any, payload: Payload) -> bool:
    pairs = payload["pairs"]
    if not pairs:
        return False
    axes = figure.subplots()
    measured = [p["measured"] for p in pairs]
    ends = [0.95 * min(measured), 1.05 * max(measured)]
    axes.fill_between(
        ends, [(1 - WITHIN) * x for x in ends], [(1 + WITHIN) * x for x in ends],
        color="#E4E4E4", label=f"±{WITHIN:.0%}",
    )  # fmt: skip
    axes.plot(ends, ends, color=GREY, lw=0.8)
    for role, marker, colour in (("held out", "x", GREY), ("front", "o", BLUE)):
        some = [p for p in pairs if p["role"] == role]
        if some:
            axes.scatter(
                [p["measured"] for p in some], [p["predicted"] for p in some],
                marker=marker, color=colour, s=22, label=f"{role} networks",
            )  # fmt: skip
    axes.set(xlabel="measured latency (ms)", ylabel="predicted latency (ms)")
    axes.set_title("predicted against measured")
    axes.legend(loc="upper left", fontsize="small")
    return True


def _search(figure: Any, payload: Payload) -> bool:
    rounds = payload["rounds"]
    panels = [
        (name, [(r["round"], r[key]) for r in rounds if r[key] is not None], colour)
        for key, name, colour in (
            ("hypervolume", "hypervolume", BLUE),
            ("tau", "surrogate's Kendall tau", GREEN),
        )
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return False
    for axes, (name, points, colour) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        axes.plot(*zip(*points, strict=True), "o-", color=colour, ms=4)
        axes.set(xlabel="round", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return True


def _stages(figure: Any, payload: Payload) -> bool:
    parts = payload["parts"]
    if not parts["metrics"] or not parts["networks"]:
        return False
    axis, axes = parts["metrics"][0], figure.subplots()
    names = parts["names"]
    identities = list(parts["networks"])
    left = [0.0] * len(identities)
    hatches = ("", "//", "..", "xx", "\\\\", "--", "oo", "++")
    for index, name in enumerate(names):
        widths = [
            axis["factor"] * sum(p["costs"].get(axis["metric"], 0.0) for p in one if p["name"] == name)
            for one in parts["networks"].values()
        ]
        axes.barh(
            identities, widths, left=left, label=name,
            color=_SEQUENCE[index % len(_SEQUENCE)], hatch=hatches[index % len(hatches)], edgecolor="white",
        )  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel=axis["label"], title="cost by stage")
    axes.legend(fontsize="small", ncols=2)
    return True


def _curves(figure: Any, payload: Payload) -> bool:
    shown = payload["curves"][:8]
    if not shown:
        return False
    epochs = [epoch for curve in shown for epoch in curve["epochs"]]
    with_losses = any(epoch["training_loss"] is not None for epoch in epochs)
    top1, *losses = figure.subplots(1, 1 + with_losses, squeeze=False)[0]
    for index, curve in enumerate(shown):
        colour, first = _SEQUENCE[index % len(_SEQUENCE)], [e for e in curve["epochs"] if e["phase"] == 1]
        x, y = _known(first, "top1")
        top1.plot(x, _percent(y), "o-", ms=3, color=colour, label=curve["id"])
        for axes in losses:
            axes.plot(*_known(first, "loss"), "o-", ms=3, color=colour)
            axes.plot(*_known(first, "training_loss"), "--", color=colour)
    top1.set(xlabel="epoch", ylabel="validation top-1 (%)", title="fine-tuning")
    top1.legend(fontsize="small")
    for axes in losses:
        axes.set(xlabel="epoch", ylabel="loss", title="loss")
        axes.plot([], [], "o-", ms=3, color=GREY, label="validation")
        axes.plot([], [], "--", color=GREY, label="training")
        axes.legend(fontsize="small")
    return True


def _known(epochs: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """The epochs of which a value is known, and the values."""
    some = [epoch for epoch in epochs if epoch[key] is not None]
    return [epoch["epoch"] for epoch in some], [epoch[key] for epoch in some]


def _exits(figure: Any, payload: Payload) -> bool:
    axis = first_axis(payload) if payload["axes"] else None
    if axis is None or not payload["many_exits"]:
        return False
    key, axes = axis["metric"], figure.subplots()
    judged = [p for p in (*payload["points"], *payload["front"]) if key in p["values"]]
    names = sorted({p["exit"] for p in judged})
    if len(names) < 2:
        return False
    for index, name in enumerate(names[:8]):
        some = [p for p in judged if p["exit"] == name]
        axes.scatter(
            [p["values"][key] * axis["factor"] for p in some], _percent(p["top1"] for p in some), s=14,
            marker="os^Dv<>p"[index], color=_SEQUENCE[index % len(_SEQUENCE)], label=f"exit {name}",
        )  # fmt: skip
    axes.set(xlabel=axis["label"], ylabel="top-1 (%)", title="where networks end")
    axes.legend(fontsize="small")
    return True


def _early_exits(figure: Any, payload: Payload) -> bool:
    found = payload["early_exits"]
    if found is None or not found["sweep"]:
        return False
    axes = figure.subplots()
    axes.plot(
        [p["cost"] for p in found["sweep"]], _percent(p["top1"] for p in found["sweep"]), "o-",
        color=BLUE, ms=4, lw=1, label="other thresholds (validation)",
    )  # fmt: skip
    for key, marker, colour, words in (
        ("chosen", "D", ORANGE, "chosen (validation)"),
        ("test", "*", GREEN, "chosen (test)"),
        ("whole", "s", GREY, "all stages (validation)"),
    ):
        if found[key] is not None:
            axes.scatter(
                [found[key]["cost"]], [100 * found[key]["top1"]],
                marker=marker, color=colour, s=70, zorder=3, label=words,
            )  # fmt: skip
    axes.set(xlabel=found["label"], ylabel="top-1 (%)", title="early exits")
    axes.legend(loc="lower right", fontsize="small")
    return True


_SEQUENCE = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#999933", GREY, "#882255")
_PICTURES: dict[str, Callable[[Any, Payload], bool]] = {
    "front": _front,
    "latency": _latency,
    "search": _search,
    "stages": _stages,
    "finetuning": _curves,
    "exits": _exits,
    "early-exits": _early_exits,
}

PICTURE_FILES = frozenset(f"{name}.png" for name in _PICTURES)
"""What the folder of a report's pictures may hold."""


def _percent(shares: Any) -> list[float]:
    return [100 * share for share in shares]
