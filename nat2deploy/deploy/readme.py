"""The README.txt of a bundle."""

from __future__ import annotations

from nat2deploy.deploy.manifest import Manifest, StagesSpec
from nat2deploy.target import Backend, DeviceKind

PIP: dict[tuple[DeviceKind, Backend], str] = {
    ("cpu", "onnxruntime"): "onnxruntime",
    ("cuda", "onnxruntime"): "'onnxruntime-gpu[cuda,cudnn]'",
    ("cpu", "openvino"): "openvino",
    ("cuda", "tensorrt"): "tensorrt",
    ("cuda", "tensorrt-rtx"): "tensorrt-rtx-cu13",
}
"""What pip calls the package that runs a bundle's engine."""


def readme(manifest: Manifest) -> str:
    """Return how to run the bundle, and what it is."""
    evidence = manifest.evidence
    lines = [
        f"Network {manifest.network} of space {manifest.space}, for {manifest.target}.",
        "",
        "On the device, with Python 3.9 or newer, in this folder (unzip a .zip first):",
        "",
        f"    pip install numpy {PIP[manifest.target.kind, manifest.target.backend]}",
        *_gpu_lines(manifest),
        "    python run.py IMAGE.png                 the five likeliest classes",
        "    python run.py FOLDER --json             all images of a folder, as JSON",
        "    python run.py --stream FOLDER           images as they are put into a folder",
        "    python run.py --stream - --newest       a camera's frames from a pipe, such as",
        "        ffmpeg -f v4l2 -i /dev/video0 -f image2pipe -c:v ppm - | python run.py --stream - --newest",
        "    python run.py --serve 8080              over HTTP; needs `pip install waitress`; try",
        "        curl --data-binary @IMAGE.png http://127.0.0.1:8080/classify",
        "    python run.py --check                   does this device agree with PyTorch?",
        "    python run.py --bench                   how fast is it here?",
        "",
        "PNG, PPM and PGM need nothing more; JPEG and others need `pip install pillow`.",
        "Exit codes: 0 well, 1 the check failed, 2 bad input.",
        "",
        "With nat2deploy: `nat2deploy verify THIS_FOLDER` checks hashes, parity and budgets.",
        "",
        f"classes   {len(manifest.output.labels)}, in labels.txt",
        f"input     {' x '.join(map(str, manifest.input.shape))} float32; normalised as manifest.json says",
        f"costs     {manifest.costs.macs:,} MACs, {manifest.costs.params:,} parameters",
    ]
    if evidence.accuracy is not None:
        accuracy = evidence.accuracy
        lines.append(f"top-1     {accuracy.top1:.2%} on {accuracy.images} test images of {accuracy.dataset}")
    if manifest.stages is not None:
        lines += _stage_lines(manifest.stages)
    lines.append("latency   as measured, in evidence.json")
    return "\n".join(lines) + "\n"


_CONFIDENCES = {
    "max-softmax": "largest probability (max-softmax)",
    "margin": "margin between the two largest probabilities",
    "entropy": "1 - normalised entropy",
}


def _stage_lines(stages: StagesSpec) -> list[str]:
    """When an image leaves, and how many do."""
    return [
        f"stages    an image leaves at the first exit whose {_CONFIDENCES[stages.confidence]}",
        "          reaches the threshold:",
        *(
            f"          {stage.file}  "
            + ("the rest" if stage is stages.exits[-1] else "nobody" if stage.threshold is None else "")
            + ("" if stage.threshold is None else f"{stage.threshold:.4f}")
            + f"  {share:.1%} of images"
            for stage, share in zip(stages.exits, stages.shares, strict=True)
        ),
    ]


def _gpu_lines(manifest: Manifest) -> list[str]:
    """How TensorRT's engine comes to the device."""
    if manifest.engine is None or manifest.engine.recipe is None:
        return []
    every = ", ".join(str(number) for plan in manifest.engine.plans for number in plan.compute_capabilities)
    where = f"on GPUs other than those of compute capability {every}" if every else "first, once"
    return [f"    python {manifest.engine.recipe:<33} {where}: builds the engine for this GPU"]
