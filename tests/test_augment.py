"""Augmentation, normalisation and batching: pure functions of images and an explicit generator."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from spnet.data import Augmentation, Split, augment, epoch_batches, flip, normalise, ordered_batches, pad_crop
from spnet.errors import UserError


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise(count: int, channels: int = 3, height: int = 6, width: int = 6) -> Tensor:
    """Images without a zero and (all but surely) without two equal windows."""
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(9))


def numbered(count: int) -> Split:
    """Image i is filled with i, label i."""
    labels = torch.arange(count)
    return Split(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), labels)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 5),
    channels=st.integers(1, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    pad=st.integers(0, 9),
    seed=st.integers(0, 1000),
)
def test_a_crop_is_one_window_of_the_padded_image(count, channels, height, width, pad, seed):
    images = noise(count, channels, height, width)
    cropped = pad_crop(images, pad, seeded(seed))
    assert cropped.shape == images.shape and cropped.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (pad,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, C, 2 pad + 1, 2 pad + 1, H, W)
    for i in range(count):
        same = (windows[i] == cropped[i][:, None, None]).all(dim=(0, 3, 4))
        assert same.any()


def test_crops_reach_every_offset_and_differ_between_images():
    position = torch.zeros(2000, 1, 5, 5, dtype=torch.uint8)
    position[:, :, 2, 2] = 1
    shifted = pad_crop(position, 2, seeded()).flatten(1).float()
    assert shifted.sum(1).eq(1).all()  # a shift by at most 2 keeps the middle pixel
    counts = shifted.argmax(1).bincount(minlength=25)
    assert counts.min() > 40 and counts.max() < 130  # 80 each, were it exact


def test_flip_mirrors_half_of_the_images_and_leaves_the_rest():
    images = noise(1000)
    flipped = flip(images, seeded())
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 430 < mirrored.sum() < 570


def test_augmentation_depends_on_the_generator_alone():
    images, strong = noise(8), Augmentation(pad=2, flip=True)
    torch.manual_seed(1)
    first = augment(images, strong, seeded(3))
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, strong, seeded(3)))
    assert not torch.equal(first, augment(images, strong, seeded(4)))


def test_no_augmentation_is_the_identity():
    images = noise(3)
    assert torch.equal(augment(images, Augmentation(pad=0, flip=False), seeded()), images)


def test_settings_do_not_move_later_draws():
    """Switching a term off changes nothing else (the paired seeds of the protocol)."""
    images, states = noise(5), []
    for setting in (Augmentation(2, True), Augmentation(2, False), Augmentation(0, True), Augmentation(0, False)):
        generator = seeded()
        augment(images, setting, generator)
        states.append(torch.rand(4, generator=generator))
    assert all(torch.equal(state, states[0]) for state in states)


def test_flip_does_not_change_the_crop():
    images = noise(16)
    cropped = augment(images, Augmentation(2, False), seeded())
    both = augment(images, Augmentation(2, True), seeded())
    assert all(torch.equal(b, c) or torch.equal(b, c.flip(2)) for b, c in zip(both, cropped, strict=True))


def test_copies_are_adjacent_and_drawn_anew():
    flat = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    copied = augment(flat, Augmentation(pad=0, flip=True), seeded(), copies=2)
    assert copied[:, 0, 0, 0].tolist() == [10, 10, 20, 20, 30, 30]
    pairs = augment(noise(32), Augmentation(pad=4, flip=True), seeded(), copies=2).view(32, 2, -1)
    assert (pairs[:, 0] != pairs[:, 1]).any(1).sum() > 28  # 1 in 162 pairs is equal by chance


def test_one_image_and_one_copy_work():
    assert augment(noise(1, 1, 1, 1), Augmentation(1, True), seeded(), copies=1).shape == (1, 1, 1, 1)


def test_wrong_settings_are_refused():
    with pytest.raises(UserError, match="pad"):
        Augmentation(pad=-1)
    with pytest.raises(ValueError, match="copies"):
        augment(noise(1), Augmentation(), seeded(), copies=0)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalise(dtype, channels_last):
    images, mean, std = noise(4), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    done = normalise(images, mean, std, dtype, channels_last)
    by_hand = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert done.dtype == dtype and done.shape == images.shape
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert done.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(done, by_hand.to(dtype), rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)


def test_a_batch_is_augmented_in_milliseconds():
    images, setting, generator = noise(128, 3, 32, 32), Augmentation(4, True), seeded()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        augment(images, setting, generator)
        times.append(time.perf_counter() - start)
    assert (
        min(times) < 0.010
    )  # about 1 ms on a quiet machine; an index per pixel or a loop over images takes more than 10


def test_an_epoch_shows_every_image_once_in_an_order_of_the_generator():
    split = numbered(10)
    batches = list(epoch_batches(split, 4, seeded(), drop_last=False))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert all(torch.equal(images[:, 0, 0, 0].long(), labels) for images, labels in batches)
    order = torch.cat([labels for _, labels in batches]).tolist()
    assert sorted(order) == list(range(10)) and order != list(range(10))
    again = torch.cat([labels for _, labels in epoch_batches(split, 5, seeded())]).tolist()
    assert again == order  # one permutation an epoch, whatever the batch size


def test_epochs_differ_and_keep_static_shapes():
    split, generator = numbered(10), seeded()
    first, second = ([y.tolist() for _, y in epoch_batches(split, 4, generator)] for _ in range(2))
    assert [len(y) for y in first] == [4, 4] and first != second


def test_a_batch_may_be_the_whole_set_but_not_larger():
    assert len(list(epoch_batches(numbered(3), 3, seeded()))) == 1
    with pytest.raises(UserError, match="batch of 4 is larger than the 3"):
        epoch_batches(numbered(3), 4, seeded())  # at the call, not at the first batch
    for batches in (lambda: epoch_batches(numbered(3), 0, seeded()), lambda: ordered_batches(numbered(3), 0)):
        with pytest.raises(UserError, match="1 or more"):
            batches()


def test_ordered_batches_keep_order_and_rest():
    labels = [y.tolist() for _, y in ordered_batches(numbered(5), 2)]
    assert labels == [[0, 1], [2, 3], [4]]
    assert [len(x) for x, _ in ordered_batches(numbered(1), 100)] == [1]
