"""What a browser would make of a report's page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from made_runs import write

from nat2deploy.report.facts import gather
from nat2deploy.report.page import render
from nat2deploy.report.payload import payload_of
from nat2deploy.report.reading import read_run


class Page(HTMLParser):
    """What a browser would make of a page: its text, and its elements with their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self._inside: list[str] = []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())
        self.data = json.loads(self.raw["data"])

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside = [tag, dict(attributes).get("id") or ""]

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = []

    def handle_data(self, data):
        if not self._inside:
            self.words.append(data)
        else:
            self.raw = {**getattr(self, "raw", {}), self._inside[1]: data}

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


def page_of(run: Path, bundle: Path | None = None) -> Page:
    """The page of a run's report without its pictures, which take most of its time."""
    facts = gather(read_run(run, bundle))
    place = run.with_name(f"{run.name}-page.html")
    write(place, render(facts, payload_of(facts), {}))
    return Page(place)
