"""Bundles, their manifests, evidence and zips; kits and results that devices send back."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz import samples
from fuzz.inputs import Place, by_head, joined, loaded, of_json, packed, split
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
    manifests, evidence = packed([manifest]), packed([samples.evidence()])
    results, words = packed([samples.result()]), packed([samples.probe()])
    return [
        Target("manifests", 4, manifests, of_json, _manifest(bundle)),
        Target("runner's manifests", 0.5, manifests, of_json, _runner(bundle, manifest)),
        Target("evidence", 2, evidence, of_json, _evidence(folder / "evidence")),
        _zips(folder, bundle),
        _reference(folder, bundle),
        _kits(folder, plan),
        Target("results of devices", 4, results, of_json, _result(folder)),
        Target(
            "words of devices", 2, words, of_json, lambda data: parse(ProbeAnswer, loaded(data), "answer")
        ),
        _jobs(folder),
    ]


def _manifest(bundle: Path) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        (bundle / "manifest.json").write_bytes(data)
        with open_bundle(bundle) as opened:
            str(opened.manifest.target)
            opened.check()

    return feed


def _runner(bundle: Path, manifest: Any) -> Callable[[bytes], None]:
    def feed(data: bytes) -> None:
        value = loaded(data)
        if isinstance(value, dict) and isinstance(value.get("files"), dict):  # more than a hash is at fault
            with suppress(RecursionError):
                data = json.dumps({**value, "files": manifest["files"]}).encode()
        (bundle / "manifest.json").write_bytes(data)
        Network(bundle, 1)

    return feed


def _evidence(folder: Path) -> Callable[[bytes], None]:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")

    def feed(data: bytes) -> None:
        value = loaded(data)
        if isinstance(value, dict):  # what is inside is to be looked at, not the digest alone
            write_evidence(folder, ())
            whole = json.loads((folder / "evidence.json").read_text())
            inner = {**value, "manifest": sha256(folder / "manifest.json")}
            inner.pop("digest", None)
            with suppress(RecursionError):
                data = json.dumps({**whole, **inner, "digest": samples.digest(inner)}).encode()
        (folder / "evidence.json").write_bytes(data)
        read_evidence(folder, "bundle")

    return feed


def _zipped(files: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


def _zips(folder: Path, bundle: Path) -> Target:
    small = {name: (bundle / name).read_bytes() for name in (*OWN_NAMES, "labels.txt", "README.txt")}

    seeds = [_zipped(small, kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    odd = (
        "../x", "/etc/x", "a\\b", "C:x", "a/../b", "x" * 300, "\u202e", "manifest.json", "MANIFEST.json", "a/"
    )  # fmt: skip

    def damage(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.1:
            return _zipped({**small, rng.choice(odd): b"x"})
        return bytes_(rng, data)

    def feed(path: Path) -> None:
        with open_bundle(path) as opened:
            opened.check()

    return Target("bundles' zips", 1, seeds, damage, Place(folder, "bundle.zip").feeding(feed))


def _reference(folder: Path, bundle: Path) -> Target:
    feed = Place(folder, "reference.npz").feeding(load_reference)
    return Target("references", 2, [(bundle / "reference.npz").read_bytes()], bytes_, feed)


def _kits(folder: Path, plan: ProfilePlan) -> Target:
    """A kit's file of a job, which is packed, or the zip itself."""
    settings = KitSettings.of(plan).model_dump(mode="json")
    job = json.dumps({"form": 1, "settings": settings, "groups": []})
    place = Place(folder, "kit.zip").feeding(read_kit)

    def feed(data: bytes) -> None:
        head, content = split(data, 2)
        place(content if head == b"zip" else _zipped({JOB_FILE: content}))

    seeds = [joined("job", job), joined("job", job), joined("zip", _zipped({JOB_FILE: job.encode()}))]
    return Target("kits", 5, seeds, by_head({"job": of_json, "zip": bytes_}), feed)


def _result(folder: Path) -> Callable[[bytes], None]:
    path = folder / "result.json"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        parse_result(loaded(data), "result")
        read_result(path, samples.kit())

    return feed


def _jobs(folder: Path) -> Target:
    """What a device is sent: a job's file, or the compressed tar of it."""
    place = folder / "job"
    place.mkdir()

    def feed(data: bytes) -> None:
        head, content = split(data, 2)
        if head == b"tar":
            receive(io.BytesIO(content), place)
        else:
            (place / JOB_FILE).write_bytes(content)
            Job(place).results({"cpu": "x"})

    job = joined("job", json.dumps(samples.job()))
    seeds = [job, job, joined("tar", samples.packed_job())]
    return Target("jobs on devices", 2, seeds, by_head({"job": of_json, "tar": bytes_}), feed)
