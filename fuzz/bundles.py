"""Bundles, their manifests, evidence and zips; kits and results that devices send back."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

from fuzz import samples
from fuzz.files import Place, json_text
from fuzz.mutation import bytes_
from fuzz.target import Target
from nat2deploy.agent.job import JOB_FILE, Job, receive
from nat2deploy.deploy.bundle import OWN_NAMES, open_bundle
from nat2deploy.deploy.evidence import read_evidence, write_evidence
from nat2deploy.deploy.reference import load_reference
from nat2deploy.deploy.runner.network import Network
from nat2deploy.files import parse, sha256
from nat2deploy.measure.plan import ProfilePlan
from nat2deploy.remote.answers import ProbeAnswer, parse_result
from nat2deploy.remote.kit import KitSettings, read_kit, read_result
from nat2deploy.run.config import load_pipeline
from nat2deploy.space.search_space import load_space
from nat2deploy.target import Target as DeviceTarget


def targets(folder: Path, run: Path) -> list[Target]:
    """All of this file; ``run`` is a small finished pipeline."""
    bundle = folder / "bundle"
    bundle.mkdir()
    for path in (run / "bundle").iterdir():
        if path.is_file():
            (bundle / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] = {name: h for name, h in manifest["files"].items() if "/" not in name}
    plan = ProfilePlan(
        space=load_space(load_pipeline(run / "config.toml").space.name), target=DeviceTarget(), seed=0,
        precision=0.1, time_limit_s=5.0, calibration_networks=8, held_out_networks=8, every_size=1,
    )  # fmt: skip
    result = samples.result()
    return [
        Target("manifests", 4, lambda rng: json_text(rng, manifest), _manifest(bundle)),
        Target("runner's manifests", 0.5, lambda rng: json_text(rng, manifest), _runner(bundle, manifest)),
        Target("evidence", 2, lambda rng: json_text(rng, samples.evidence()), _evidence(folder / "evidence")),
        _zips(folder, bundle),
        _reference(folder, bundle),
        _kits(folder, plan),
        Target("results of devices", 4, lambda rng: json_text(rng, result), _result(folder)),
        Target(
            "words of devices", 2, lambda rng: json_text(rng, samples.probe()),
            lambda content: parse(ProbeAnswer, _loaded(content), "answer"),
        ),
        _jobs(folder, plan),
    ]  # fmt: skip


def _loaded(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _manifest(bundle: Path) -> Any:
    def feed(content: str) -> None:
        (bundle / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        with open_bundle(bundle) as opened:
            str(opened.manifest.target)
            opened.check()

    return feed


def _runner(bundle: Path, manifest: Any) -> Any:
    def feed(content: str) -> None:
        value = _loaded(content)
        if isinstance(value, dict) and isinstance(
            value.get("files"), dict
        ):  # no more than the hash is at fault
            value["files"] = manifest["files"]
            content = json.dumps(value)
        (bundle / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        Network(bundle, 1)

    return feed


def _evidence(folder: Path) -> Any:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")

    def feed(content: str) -> None:
        value = _loaded(content)
        if isinstance(value, dict):  # what is inside is to be looked at, not the digest alone
            write_evidence(folder, ())
            whole = json.loads((folder / "evidence.json").read_text())
            inner = {**value, "manifest": sha256(folder / "manifest.json")}
            inner.pop("digest", None)
            content = json.dumps({**whole, **inner, "digest": samples.digest(inner)})
        (folder / "evidence.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        read_evidence(folder, "bundle")

    return feed


def _zips(folder: Path, bundle: Path) -> Target:
    small = {name: (bundle / name).read_bytes() for name in (*OWN_NAMES, "labels.txt", "README.txt")}

    def packed(names: dict[str, bytes], kind: int) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", kind) as archive:
            for name, content in names.items():
                archive.writestr(name, content)
        return held.getvalue()

    wholes = [packed(small, kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    odd = (
        "../x",
        "/etc/x",
        "a\\b",
        "C:x",
        "a/../b",
        "x" * 300,
        "\u202e",
        "manifest.json",
        "MANIFEST.json",
        "a/",
    )

    def draw(rng: random.Random) -> bytes:
        if rng.random() < 0.1:
            return packed({**small, rng.choice(odd): b"x"}, zipfile.ZIP_STORED)
        return bytes_(rng, rng.choice(wholes))

    def feed(path: Path) -> None:
        with open_bundle(path) as opened:
            opened.check()

    return Target("bundles' zips", 1, draw, Place(folder, "bundle.zip").feeding(feed))


def _reference(folder: Path, bundle: Path) -> Target:
    whole = (bundle / "reference.npz").read_bytes()
    feed = Place(folder, "reference.npz").feeding(load_reference)
    return Target("references", 2, lambda rng: bytes_(rng, whole), feed)


def _kits(folder: Path, plan: ProfilePlan) -> Target:
    settings = KitSettings.of(plan).model_dump(mode="json")
    job = {"form": 1, "settings": settings, "groups": []}

    def draw(rng: random.Random) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            archive.writestr(JOB_FILE, json_text(rng, job).encode("utf-8", "surrogatepass"))
        data = held.getvalue()
        return bytes_(rng, data) if rng.random() < 0.3 else data

    return Target("kits", 5, draw, Place(folder, "kit.zip").feeding(read_kit))


def _result(folder: Path) -> Any:
    path = folder / "result.json"

    def feed(content: str) -> None:
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        value = _loaded(content)
        parse_result(value, "result")
        read_result(path, samples.kit())

    return feed


def _jobs(folder: Path, plan: ProfilePlan) -> Target:
    """What a device is sent: a job's file, or the compressed tar of it."""
    place = folder / "job"
    place.mkdir()
    job, packed = samples.job(), samples.packed_job()

    def draw(rng: random.Random) -> tuple[bool, bytes]:
        if rng.random() < 0.7:
            return True, json_text(rng, job).encode("utf-8", "surrogatepass")
        return False, bytes_(rng, packed)

    def feed(given: tuple[bool, bytes]) -> None:
        is_file, content = given
        if is_file:
            (place / JOB_FILE).write_bytes(content)
            Job(place).results({"cpu": "x"})
        else:
            receive(io.BytesIO(content), place)

    return Target("jobs on devices", 2, draw, feed)
