"""The doctor on a device behind a real sshd."""

import re

from nat2deploy.doctor.measuring import check_device
from nat2deploy.remote.ssh import SshAddress, SshSettings
from nat2deploy.remote.ssh_device import SshDevice
from nat2deploy.target import Target


def test_it_measures_the_device_and_leaves_nothing_there(sshd, device_python):
    settings = SshSettings(SshAddress.parse(sshd.address), str(device_python), sshd.options)
    device = SshDevice(settings, Target(), say=print)
    found = {f.name: f for f in check_device(device, Target(), 0.5, lambda *_: None)}
    assert "torch not installed" in found["device"].words  # it is the device's Python that answers
    assert "repeats within" in found["noise"].words
    assert list((sshd.home / ".cache/nat2deploy/jobs").glob("[!.]*")) == []


def test_what_an_earlier_check_left_there_is_not_taken(sshd, device_python, monkeypatch):
    settings = SshSettings(SshAddress.parse(sshd.address), str(device_python), sshd.options)
    said = []
    with monkeypatch.context() as patch:
        patch.setattr(SshDevice, "finish", lambda device: None)  # as when the connection is lost
        for _ in range(2):
            device = SshDevice(settings, Target(), say=print)
            said.append([])
            list(check_device(device, Target(), 0.5, lambda share, text: said[-1].append(text)))
    for words in said:
        assert any("round" in text for text in words)
    left = list((sshd.home / ".cache/nat2deploy/jobs").glob("[!.]*"))
    assert len(left) == 2 and all(re.fullmatch("[0-9a-f]{16}", one.name) for one in left)
    for one in left:
        SshDevice(settings, Target(), say=print).finish(one.name)
