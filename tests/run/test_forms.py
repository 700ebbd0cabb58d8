"""Settings of a form: what they take, and that an error says the form in words."""

import pytest

from nat2deploy.errors import UserError
from nat2deploy.files import parse
from nat2deploy.run.config import ExportConfig, ProfileConfig
from nat2deploy.run.finetune_config import FinetuneConfig


@pytest.mark.parametrize(
    ("model", "value", "words"),
    [
        (
            FinetuneConfig,
            {"devices": ["gpu"]},
            "settings: devices.0: 'gpu': write cpu, cuda, or cuda:1 for the second GPU",
        ),
        (FinetuneConfig, {"devices": []}, "settings: devices: Tuple should have at least 1 item"),
        (ExportConfig, {"device": "cuda:"}, "'cuda:': write cpu, cuda, or"),
        (ExportConfig, {"device": "cpu\n"}, "write cpu, cuda, or"),
        (ExportConfig, {"batch": "1-8"}, "'1-8': write a number such as 8, or a range: 1:8, or 1:4:8"),
        (ProfileConfig, {"device": "pi@there"}, "'pi@there': write cpu, or ssh://user@host"),
        (ProfileConfig, {"device": "ssh://"}, "'ssh://': write cpu, or ssh://user@host"),
    ],
)
def test_another_form_is_refused_in_words(model, value, words):
    with pytest.raises(UserError) as caught:
        parse(model, value, "settings")
    assert words in str(caught.value) and "pattern" not in str(caught.value)
    assert "more)" not in str(caught.value)


def test_what_has_the_form_is_taken():
    assert FinetuneConfig(devices=("cuda", "cuda:12", "cpu")).devices == ("cuda", "cuda:12", "cpu")
    assert ExportConfig(batch="1:4:8").batches == (1, 4, 8)
    assert ProfileConfig(device="ssh://pi@there").device == "ssh://pi@there"
