import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from nat2deploy.data.preprocess import Preprocessing, resize


def test_square_images_become_the_resolution_and_are_normalised():
    images = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    found = Preprocessing(resolution=28, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0)).apply(images)
    assert found.shape == (2, 3, 28, 28)
    assert found[0, :, 3, 3].tolist() == pytest.approx([1.0, 1.5, 0.5])


@pytest.mark.parametrize(("height", "width"), [(20, 30), (30, 20), (50, 16), (9, 9)])
def test_agrees_with_torchvision_on_any_shape(height, width):
    images = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(1)).float()
    chain = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])
    assert torch.allclose(resize(images, 16), chain(images), atol=1e-3)


def test_shrinking_is_antialiased_like_pillow():
    images = torch.randint(0, 256, (1, 1, 64, 64), generator=torch.Generator().manual_seed(2)).byte()
    pillow = Image.fromarray(images[0, 0].numpy()).resize((16, 16), Image.Resampling.BILINEAR)
    difference = resize(images, 16)[0, 0] - torch.tensor(list(pillow.getdata())).view(16, 16)
    assert float(difference.abs().max()) <= 1.0  # Pillow rounds to whole levels


@pytest.mark.parametrize(
    "field", [{"resolution": 0}, {"std": (0.0, 1.0, 1.0)}, {"mean": (float("nan"),) * 3}]
)
def test_impossible_values_are_refused(field):
    with pytest.raises(ValidationError):
        Preprocessing(**{"resolution": 8, "mean": (0, 0, 0), "std": (1, 1, 1)} | field)
