"""Real data for the illustrations, from files that ship with the packages (no download)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stabcore import _validation as check
from stabcore._validation import Array


def digit_pair(
    first: int = 3,
    second: int = 8,
    n_samples: int = 100,
    rng: int | np.random.Generator | None = None,
) -> tuple[Array, Array]:
    """Return images of two handwritten digits and their labels −1 and +1.

    The 8×8 images of scikit-learn's digits (UCI ML hand-written digits data), drawn at random
    without repetition.

    Parameters
    ----------
    first, second : int
        The digits, 0 to 9; `first` is labelled −1, `second` +1.
    n_samples : int
        Number of images.
    rng : int, numpy.random.Generator or None
        Chooses the images.

    Returns
    -------
    images : array, shape (n_samples, 64)
        Brightness between 0 and 1.
    labels : array, shape (n_samples,)

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If the digits are equal or out of range, or more images are asked for than exist.

    Examples
    --------
    >>> images, labels = digit_pair(n_samples=10, rng=0)
    >>> images.shape, sorted(set(labels.tolist()))
    ((10, 64), [-1.0, 1.0])
    """
    named = [check.integer(*pair, minimum=0) for pair in (("first", first), ("second", second))]
    if first == second or max(named) > 9:
        raise ValueError(
            f"first and second must be two different digits, got {first} and {second}."
        )
    return digit_classes((first,), (second,), n_samples, rng)


def digit_classes(
    first: Sequence[int] = (0, 2, 4, 6, 8),
    second: Sequence[int] = (1, 3, 5, 7, 9),
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> tuple[Array, Array]:
    """Return images of handwritten digits and labels: −1 for one class of digits, +1 for another.

    By default even against odd, for which there are 1797 images. See `digit_pair` for the data.

    Parameters
    ----------
    first, second : sequences of int
        The digits, 0 to 9, of each class; no digit twice.
    n_samples : int
        Number of images.
    rng : int, numpy.random.Generator or None
        Chooses the images.

    Returns
    -------
    images : array, shape (n_samples, 64)
        Brightness between 0 and 1.
    labels : array, shape (n_samples,)

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If a class is empty, a digit is out of range or named twice, or more images are asked for
        than exist.

    Examples
    --------
    >>> images, labels = digit_classes(n_samples=1000, rng=0)
    >>> images.shape, sorted(set(labels.tolist()))
    ((1000, 64), [-1.0, 1.0])
    """
    every = _digits()
    generator = check.generator(rng)
    negative, positive = (_class(*pair) for pair in (("first", first), ("second", second)))
    named = negative + positive
    if len(set(named)) < len(named):
        raise ValueError(
            f"first and second must be different digits, got {negative} and {positive}; "
            "name each digit once."
        )
    images, digits = every.data, every.target
    rows = np.flatnonzero(np.isin(digits, named))
    if check.integer("n_samples", n_samples) > rows.size:
        raise ValueError(
            f"n_samples is {n_samples} but there are only {rows.size} images of these digits."
        )
    chosen = generator.choice(rows, size=n_samples, replace=False)
    return images[chosen] / 16, np.where(np.isin(digits[chosen], negative), -1.0, 1.0)


def first_digits(count: int, outputs: int = 1) -> tuple[Array, Array]:
    """Return the first handwritten digits as inputs of small networks, and what to learn of them.

    The mean of all images is subtracted, and the mean squared length of those returned is 1. See
    `digit_pair` for the data.

    Parameters
    ----------
    count : int
        N, at most 1797.
    outputs : int
        1, or C ≥ 2 classes, the digit modulo C.

    Returns
    -------
    images : array, shape (N, 8, 8)
    targets : array, shape (N,) or (N, C)
        1 for even digits and −1 for odd ones, or a row of the identity matrix.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If there are not so many images.

    Examples
    --------
    >>> images, parity = first_digits(4)
    >>> round(float((images**2).sum() / 4), 12), parity.tolist()
    (1.0, [1.0, -1.0, 1.0, -1.0])
    """
    digits = _digits()
    number, classes = check.integer("count", count), check.integer("outputs", outputs)
    if number > len(digits.target):
        raise ValueError(
            f"count is {number} but there are only {len(digits.target)} images; ask for fewer."
        )
    images = digits.images[:number] - digits.images.mean(axis=0)
    images = images / np.sqrt((images**2).sum(axis=(1, 2)).mean())
    labels = digits.target[:number]
    if classes == 1:
        return images, np.where(labels % 2 == 0, 1.0, -1.0)
    return images, np.eye(classes)[labels % classes]


def _digits() -> Any:
    """Return scikit-learn's digits, or say how to get them."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed; "
            "install it with: pip install 'stabcore[networks]'"
        ) from error
    return load_digits()


def _class(name: str, digits: Sequence[int]) -> list[int]:
    """Validate the digits of one class."""
    members = [check.integer(name, digit, minimum=0) for digit in digits]
    if not members or max(members) > 9:
        raise ValueError(f"{name} must be digits, 0 to 9, at least one; got {members}.")
    return members


def centred(images: ArrayLike) -> Array:
    """Return images as network inputs: their mean is subtracted, each is scaled to length 1.

    Without the mean the gradients at different images are not nearly parallel, and the kernel is
    better conditioned.

    Parameters
    ----------
    images : array, shape (N, d)
        No two of them alike, N ≥ 2.

    Returns
    -------
    array, shape (N, d)

    Raises
    ------
    ValueError
        If an image is the mean image.

    Examples
    --------
    >>> centred([[0.0, 1.0], [0.0, 3.0]])
    array([[ 0., -1.],
           [ 0.,  1.]])
    """
    array = check.finite_array("images", images, ndim=2)
    difference = array - array.mean(axis=0)
    lengths = np.linalg.norm(difference, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(
            f"images has the mean image at row {int(np.argmin(lengths))}: it has no direction; "
            "leave it out."
        )
    return np.asarray(difference / lengths)
