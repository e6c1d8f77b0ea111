import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stabcore.companion import centred, digit_classes, digit_pair


def test_images_are_members_of_the_set_with_their_labels():
    inputs, targets = digit_pair(3, 8, n_samples=50, rng=0)
    images, digits = load_digits(return_X_y=True)
    for row, label in zip(inputs, targets, strict=True):
        (where,) = np.nonzero((images == 16 * row).all(axis=1))
        assert set(digits[where]) == {3 if label == -1 else 8}
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_centred_images_have_length_one_around_their_mean():
    images = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 5.0]])
    expected = [[-1, -1], [1, -1], [0, 2]] / np.sqrt([[2], [2], [4]])
    assert centred(images) == pytest.approx(expected, rel=1e-14)
    assert images.tolist() == [[1.0, 2.0], [3.0, 2.0], [2.0, 5.0]]


def test_no_image_is_drawn_twice():
    _, digits = load_digits(return_X_y=True)
    total = int(np.isin(digits, [0, 1]).sum())
    inputs, targets = digit_pair(0, 1, n_samples=total, rng=1)
    assert len(np.unique(inputs, axis=0)) == total
    assert (targets == -1).sum() == (digits == 0).sum()


def test_the_seed_chooses_the_images():
    first, second, third = (digit_pair(n_samples=20, rng=seed)[0] for seed in (0, 0, 1))
    assert (first == second).all()
    assert (first != third).any()


def test_a_thousand_images_of_even_and_odd_digits():
    inputs, targets = digit_classes(n_samples=1000, rng=0)
    images, digits = load_digits(return_X_y=True)
    for row, label in zip(inputs[:50], targets[:50], strict=True):
        (where,) = np.nonzero((images == 16 * row).all(axis=1))
        assert {(-1) ** (digit + 1) for digit in digits[where]} == {label}
    assert len(np.unique(inputs, axis=0)) == 1000
    assert 400 < (targets == 1).sum() < 600


def test_a_pair_is_two_classes_of_one_digit():
    pair, classes = digit_pair(3, 8, 30, rng=2), digit_classes([3], [8], 30, rng=2)
    assert all((one == other).all() for one, other in zip(pair, classes, strict=True))


def test_classes_may_hold_several_digits():
    _, digits = load_digits(return_X_y=True)
    total = int((digits < 3).sum())
    _, targets = digit_classes((0, 2), (1,), total, rng=0)
    assert (targets == 1).sum() == (digits == 1).sum()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [1], "first must be digits, 0 to 9, at least one"),
        ([1], [10], "second must be digits, 0 to 9"),
        ([1, 2], [2, 3], "must be different digits"),
        ([1, 1], [2], "name each digit once"),
        ([-1], [2], "first"),
        ([1.5], [2], "first"),
    ],
)
def test_wrong_classes_are_refused(first, second, message):
    with pytest.raises((ValueError, TypeError), match=message):
        digit_classes(first, second, 10)


def test_more_images_than_exist_are_refused():
    with pytest.raises(ValueError, match="only 1797 images"):
        digit_classes(n_samples=1798)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'stabcore\[networks\]'"):
        digit_pair()
