"""What errors of a pipeline's stages call settings."""

import pytest

from nat2deploy.errors import UnfitNetworkError, UserError
from nat2deploy.run.pipeline_words import as_keys, told_as_keys


@pytest.mark.parametrize(
    ("section", "said", "told"),
    [
        ("export", "--sm: it is for others", "[export] sm: it is for others"),
        ("export", "give --stage-accuracy-drop instead", "give [export] stage_accuracy_drop instead"),
        ("export", "(--phases 2), without --stages", "([finetune] phases 2), without [export] stages"),
        ("profile", "raise it (--time-limit) to 9 s", "raise it ([profile] time_limit_s) to 9 s"),
        ("profile", "use --backend onnxruntime", "use [target] backend onnxruntime"),
        ("profile", "--python 'x y' is no Python", "[profile] python 'x y' is no Python"),
        ("profile", "--ssh-option 'x': write KEY=VALUE", "[profile] ssh_options 'x': write KEY=VALUE"),
        ("profile", "give --table NAME=FILE", 'give [profile.tables] NAME = "FILE"'),
        ("profile", "give --table", "give [profile] table"),
        ("search", "or say --allow-uncertified", "or say allow_uncertified"),
        ("train", "choose another --out", "choose another --out"),
        (
            "finetune",
            "`finetune RUN --epochs 3`, more --epochs",
            "`finetune RUN --epochs 3`, more [finetune] epochs",
        ),
        ("export", "a well--known pair", "a well--known pair"),
    ],
)
def test_options_become_keys_of_the_file(section, said, told):
    assert as_keys(said, section) == told


@pytest.mark.parametrize("kind", [UserError, UnfitNetworkError])
def test_an_error_stays_of_its_kind(kind):
    with pytest.raises(kind, match=r"^\[export\] stages: x$") as caught, told_as_keys("export"):
        raise kind("--stages: x")
    assert type(caught.value) is kind


def test_other_errors_pass():
    with pytest.raises(ValueError, match="--stages"), told_as_keys("export"):
        raise ValueError("--stages")
