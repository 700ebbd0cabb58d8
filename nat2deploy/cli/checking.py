"""doctor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from nat2deploy.cli.options import PYTHON, Json, Python, SshOption, Threads, ssh_settings
from nat2deploy.cli.progress import progress
from nat2deploy.errors import UserError, first_line


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    device: Annotated[
        str,
        typer.Option(help="cpu, cuda:N, or ssh://user@host[:port]: what is to be measured on."),
    ] = "cpu",
    backend: Annotated[
        str,
        typer.Option(help="onnxruntime, openvino, torch, tensorrt or tensorrt-rtx: what it measures with."),
    ] = "onnxruntime",
    threads: Threads = 1,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.5, max=600, help="Seconds of measuring.")
    ] = 5.0,
    python: Python = PYTHON,
    ssh_option: SshOption = None,
    as_json: Json = False,
) -> None:
    """Check the installation, and whether latencies that a device measures now can be trusted.

    Exit code 1 when something does not work; what only makes results worse is a warning.

    Example: nat2deploy doctor --device ssh://pi@raspberrypi
    """
    from nat2deploy.cli.render_doctor import print_findings
    from nat2deploy.doctor.finding import Finding
    from nat2deploy.doctor.installation import check_installation
    from nat2deploy.target import make_target

    ssh = ssh_settings(device, python, ssh_option)
    target = make_target("cpu" if ssh else device, backend, "fp32", threads, 1, elsewhere=ssh is not None)
    areas: dict[str, list[Finding]] = {"installation": [], device: []}
    with progress() as report:

        def measuring(share: float, text: str) -> None:
            report("measuring", share, 1.0, text)

        of_device: Iterable[Finding]
        try:
            from nat2deploy.doctor.measuring import check_device
            from nat2deploy.run.profile import measuring_device

            of_device = check_device(measuring_device(target, ssh, report), target, time_limit, measuring)
        except (ImportError, OSError) as error:
            words = f"nothing can be measured: {first_line(error)}"
            of_device = [Finding("device", "failure", words, "mend what is above")]
        for area, findings in (("installation", check_installation()), (device, of_device)):
            try:
                for finding in findings:
                    report(area, len(areas[area]), len(areas[area]) + 1, finding.name)
                    areas[area].append(finding)
            except UserError as error:
                areas[area].append(Finding("device", "failure", str(error)))
    print_findings(areas, as_json=as_json)
    if any(finding.state == "failure" for findings in areas.values() for finding in findings):
        raise typer.Exit(1)
