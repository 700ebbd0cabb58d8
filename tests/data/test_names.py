import pytest

from nat2deploy.data.names import shown_name


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("digits", "digits"),
        ("imagefolder:/home/ada/photos", "imagefolder:photos"),
        ("imagefolder:/home/ada/photos/", "imagefolder:photos"),
        ("imagefolder:C:\\Users\\ada\\photos", "imagefolder:photos"),
        ("imagefolder:photos", "imagefolder:photos"),
        ("imagefolder:~", "imagefolder"),
        ("imagefolder:..", "imagefolder"),
        ("cifar10:/home/ada/data", "cifar10"),
    ],
)
def test_a_data_set_is_shown_without_this_machines_folders(spec, shown):
    assert shown_name(spec) == shown
