"""The page: templates, style, scripts and data in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nat2deploy.report.drawing import draw
from nat2deploy.report.facts import Facts, errors_of
from nat2deploy.report.metrics import Axis
from nat2deploy.report.payload import Payload, embedded, first_axis
from nat2deploy.report.privacy import masked, masked_settings
from nat2deploy.report.repeat import commands, settings_file
from nat2deploy.version import __version__

_SCRIPTS = ("plots.js", "front.js", "page.js")
PLOTLY = "plotly-basic.min.js"


def render(facts: Facts, payload: Payload, pictures: dict[str, bytes], *, live: bool = False) -> str:
    """Return the page.

    Args:
        facts: what is written.
        payload: what is drawn.
        pictures: PNGs by name, shown until (or where no) scripts draw.
        live: whether a server keeps the page up to date; it then serves the plotting library, too.
    """
    scripts = "\n".join(asset(name) for name in _SCRIPTS)
    library = asset(PLOTLY)
    inline = [scripts] if live else [library, scripts]
    name, settings = settings_file(facts.files)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            files=facts.files,
            front=facts.files.front,
            supernet=facts.files.supernet,
            bundle=facts.files.bundle,
            pictures={key: _data_url(picture) for key, picture in pictures.items()},
            payload=payload,
            errors=errors_of(facts.pairs),
            shown=first_axis(payload)["metric"] if payload["axes"] else "",
            data=Markup(embedded(payload)),  # escaped there: no markup can stand in it
            style=Markup(asset("report.css")),
            scripts=Markup(scripts),
            library=Markup("" if live else library),
            script_sources=" ".join([*(_hash(text) for text in inline), *(["'self'"] if live else [])]),
            live=live,
            commands=commands(facts.files),
            settings_name=name,
            settings=settings,
            version=__version__,
        )
    )


@cache
def asset(name: str) -> str:
    """Return the text of a file that comes with the package."""
    return (resources.files("nat2deploy.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nat2deploy.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        percent=_percent, masked=masked, setting=masked_settings, cost=_cost, duration=_duration
    )
    environment.globals["draw"] = draw
    return environment


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _data_url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _cost(value: float | None, axis: Axis) -> str:
    """A cost as digits, in the axis's unit."""
    if value is None:
        return "-"
    number = value * axis.factor
    return f"{number:.3f}" if abs(number) < 10 else f"{number:.1f}" if abs(number) < 1000 else f"{number:.0f}"


def _duration(seconds: Any) -> str:
    whole = round(float(seconds))
    if whole < 60:
        return f"{float(seconds):.1f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
