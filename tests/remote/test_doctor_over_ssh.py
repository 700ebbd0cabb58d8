"""The doctor on a device behind a real sshd."""

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
