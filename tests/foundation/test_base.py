"""The interface itself: prompts that fit together, clicks that land where the image lies."""

import pytest
import torch

from proxyprompt.foundation.base import Features, Foundation, Geometry, Points, Prompts


def test_prompts_say_how_many_images_and_objects():
    points = Points(torch.zeros(2, 3, 1, 2), torch.ones(2, 3, 1))
    assert Prompts(points=points, boxes=torch.zeros(2, 3, 4)).batch() == (2, 3)


def test_prompts_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"'proxy': \(2, 3\), 'boxes': \(2, 1\)"):
        Prompts(proxy=torch.zeros(2, 3, 4, 8), boxes=torch.zeros(2, 1, 4)).batch()
    with pytest.raises(ValueError, match="at least one of proxy, dense, points, boxes, masks"):
        Prompts().batch()


@pytest.mark.parametrize(
    "geometry", [Geometry((300, 400), (768, 1024), 1024), Geometry((300, 400), (1024, 1024), 1024)]
)
def test_clicks_land_where_the_image_lies(geometry):
    corner = torch.tensor([[[400.0, 300.0], [0.0, 0.0], [200.0, 150.0]]])
    height, width = geometry.scaled
    expected = torch.tensor([[[width, height], [0, 0], [width / 2, height / 2]]])
    torch.testing.assert_close(Foundation().to_input(corner, geometry), expected.float())


def test_features_of_some_images():
    features = Features(torch.arange(4.0).view(4, 1, 1, 1), (torch.arange(4.0).view(4, 1, 1, 1),))
    part = features[1:3]
    assert part.embedding.flatten().tolist() == part.high_res[0].flatten().tolist() == [1.0, 2.0]
    assert part.padding is None


def test_maps_lie_position_by_position_however_they_were_kept():
    """Else what was read from a disk would be computed in another order, and differ in the last bits."""
    maps = {
        "embedding": torch.randn(2, 8, 4, 4),
        "high_res_0": torch.randn(2, 2, 8, 8),
    }
    other = {name: x.contiguous(memory_format=torch.channels_last) for name, x in maps.items()}
    for features in (Features.from_tensors(maps), Features.from_tensors(other)[:1]):
        for level in (features.embedding, *features.high_res):
            assert level.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(features.embedding, maps["embedding"][: len(features.embedding)])
