"""Random crops and flips."""

import pytest
import torch

from knet_hvd.data import augment, center_crop


def random_bytes(*shape: int) -> torch.Tensor:
    """Return the same random uint8 values at each call."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_augmentation_is_determined_by_the_generator() -> None:
    images = random_bytes(16, 3, 32, 32)

    def run(seed: int) -> torch.Tensor:
        return augment(images, torch.Generator().manual_seed(seed))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert run(1).dtype == torch.uint8


def test_augmentation_leaves_its_input_alone() -> None:
    images = random_bytes(4, 1, 8, 8)
    augment(images, torch.Generator().manual_seed(0)).zero_()
    assert torch.equal(images, random_bytes(4, 1, 8, 8))


def test_every_augmented_image_is_a_shifted_and_maybe_mirrored_one() -> None:
    images = random_bytes(400, 2, 6, 7)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    shifts, mirrored = set(), 0
    changed = augment(images, torch.Generator().manual_seed(3))
    for image, source in zip(changed, padded, strict=True):
        found = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            if torch.equal(
                image.flip(2) if flip else image, source[:, top : top + 6, left : left + 7]
            )
        ]
        assert found
        if len(found) == 1:
            shifts.add(found[0][:2])
            mirrored += found[0][2]
    assert {top for top, _ in shifts} == {left for _, left in shifts} == set(range(9))
    # Half of 400, with a deviation of 10.
    assert 140 < mirrored < 260


def test_augmentation_refuses_floats() -> None:
    with pytest.raises(TypeError, match="uint8"):
        augment(torch.zeros(1, 1, 8, 8), torch.Generator())


def test_squares_are_cut_from_everywhere_in_the_image() -> None:
    images = random_bytes(300, 2, 6, 7)
    crops = augment(images, torch.Generator().manual_seed(3), crop_size=4)
    assert crops.shape == (300, 2, 4, 4)
    places = set()
    for crop, image in zip(crops, images, strict=True):
        found = [
            (top, left)
            for top in range(3)
            for left in range(4)
            for source in (image, image.flip(2))
            if torch.equal(crop, source[:, top : top + 4, left : left + 4])
        ]
        # The mirror image's columns are as many: any place will do for it.
        assert found
        places.update(found)
    assert places == {(top, left) for top in range(3) for left in range(4)}


def test_the_middle_is_the_middle() -> None:
    images = random_bytes(2, 3, 32, 33)
    assert torch.equal(center_crop(images, 24), images[:, :, 4:28, 4:28])
    assert torch.equal(center_crop(images, 32), images[:, :, :, :32])


@pytest.mark.parametrize("size", [0, 9])
def test_squares_that_do_not_fit_are_refused(size: int) -> None:
    images = random_bytes(2, 3, 8, 12)
    with pytest.raises(ValueError, match=f"expected 1 to 8.*got {size}"):
        augment(images, torch.Generator(), crop_size=size)
    with pytest.raises(ValueError, match=f"expected 1 to 8.*got {size}"):
        center_crop(images, size)
