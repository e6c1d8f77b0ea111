r"""The law of the signal z = xy of one neuron's data, and E log|a + bz|, on which all depends.

At the saddle u = w = 0 of the loss ½(uwx − y)² the data enter through z alone: u + w is multiplied
by 1 + ηz and u − w by 1 − ηz. A batch of B samples has the mean of z in place of z, weight decay γ
has 1 − ηγ in place of 1. So a law must know its batches and `mean_log`, E log|a + bz|:

* finite laws (data sets, label flips): a finite sum, −∞ where a factor vanishes;
* laws with a density: `stabcore.problems.normal_signals`, and `distribution_signals` for those of
  SciPy.

A law of one's own is a `Signal` with its moments, `batched` and `mean_log`, and `draw` if it is to
be simulated.

(Our derivation.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import comb, gammaln, xlogy

from stabcore import _validation as check
from stabcore._log_sums import mean_log, shifted
from stabcore._validation import Array
from stabcore.exponent import Exponent, exact
from stabcore.problems._log_means import finite_mean_log
from stabcore.sampling import MOST_LISTED, SGD, Batches, as_method

DRAWN_BATCHES = 20_000

DRAWN_BLOCKS = 20  # of the drawn batches, for the standard error

STUDENT = 2.093  # the 97.5 % quantile of Student's law with 19 degrees of freedom


class Signal(ABC):
    """The law of z = xy, or of its mean over a batch.

    Parameters of a law may be arrays: they are then a family of laws, and broadcast against the
    step sizes of a grid.

    Attributes
    ----------
    mean, second_moment : arrays
        E[z] and E[z²].
    mean_square_input : array
        E[x²].
    """

    mean: Array
    second_moment: Array
    mean_square_input: Array
    kind = "exact"
    method: str = "own law"
    status = "converged"

    @abstractmethod
    def batched(self, method: SGD, rng: int | np.random.Generator | None = 0) -> Signal:
        """Return the law of the mean of z over a batch.

        Reshuffled batches have the law of a batch without replacement: one exponent depends on the
        law of single batches alone, since numbers commute.

        Parameters
        ----------
        method : SGD
            How batches are drawn.
        rng : int, numpy.random.Generator or None
            Used where the batches are too many to be listed.

        Returns
        -------
        Signal
        """

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Return x² and z = xy of independent samples, for `neuron_runs`.

        Parameters
        ----------
        rng : numpy.random.Generator
        shape : tuple of int

        Returns
        -------
        squares, values : arrays of that shape
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not define draw(rng, shape), which a simulation needs; "
            "let it return x² and xy of independent samples."
        )

    @abstractmethod
    def mean_log(self, offset: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
        """Return E log|offset + scale·z| and its error, broadcast with the law's parameters.

        Parameters
        ----------
        offset, scale : arrays

        Returns
        -------
        value, error : arrays
            The error bounds rounding, or is estimated (quadrature, drawn batches: 95 %).
        """

    def exponent(self, offset: float, scale: float) -> Exponent:
        """Return E log|offset + scale·z| of a single law as an `Exponent`.

        Parameters
        ----------
        offset, scale : float

        Returns
        -------
        Exponent

        Raises
        ------
        ValueError
            If this is a family of laws.
        """
        self.require_single()
        value, error = (float(part) for part in self.mean_log(offset, scale))
        if not math.isfinite(value) or not math.isfinite(error):
            return exact(value, math.inf if math.isfinite(value) else 0.0, self.method)
        return Exponent(
            value=value,
            lower=value - error,
            upper=value + error,
            kind=self.kind,
            method=self.method,
            status=self.status,
            standard_error=error / STUDENT if self.kind == "statistical" else None,
        )

    def require_single(self) -> None:
        """Refuse a family of laws where one is needed."""
        if np.ndim(self.mean):
            raise ValueError(
                f"signal must be a single law, got a family of shape {np.shape(self.mean)}; use "
                "saddle_grid for families, or give the law numbers as parameters."
            )


class FiniteSignal(Signal):
    r"""A signal with finitely many values: the products z_i = x_i y_i of a data set.

    Parameters
    ----------
    values : array, shape (..., N)
        The values z_i; leading axes are a family of laws.
    probabilities : array, shape (N,), optional
        Uniform by default.
    squares : array, shape (..., N), optional
        x_i², which matter away from the saddle only (`neuron_runs`); 1 by default.

    Examples
    --------
    >>> signal = FiniteSignal([1.0, -1.0], [0.75, 0.25])
    >>> float(signal.mean), float(signal.second_moment)
    (0.5, 1.0)
    >>> float(signal.mean_log(1.0, -1.0)[0])
    -inf
    """

    method = "finite sum"

    def __init__(
        self,
        values: ArrayLike,
        probabilities: ArrayLike | None = None,
        squares: ArrayLike | None = None,
    ) -> None:
        z = check.moderate_array("values", values, least=0.0)
        if z.ndim == 0:
            raise ValueError("values must have at least one axis, got a number; pass [value].")
        w = check.probabilities(probabilities, z.shape[-1])
        s = np.ones_like(z) if squares is None else check.finite_array("squares", squares)
        if (s < 0).any() or s.shape[-1:] != z.shape[-1:]:
            raise ValueError(
                f"squares must be the x_i² ≥ 0, one per value, got shape {s.shape} for values of "
                f"shape {z.shape} and a smallest entry {s.min():g}."
            )
        used = w > 0
        self._set(z[..., used], w[used], s[..., used])

    def _set(self, values: Array, weights: Array, squares: Array, drawn: str = "") -> None:
        """Take over valid arrays; `drawn` says why they are a sample of all batches, if so."""
        self.values, self.weights, self.squares, self.drawn = values, weights, squares, bool(drawn)
        self.mean = (values * weights).sum(axis=-1)
        self.second_moment = (values**2 * weights).sum(axis=-1)
        self.mean_square_input = (squares * weights).sum(axis=-1)
        if drawn:
            self.kind, self.status = "statistical", drawn

    @classmethod
    def from_data(
        cls, inputs: ArrayLike, targets: ArrayLike, probabilities: ArrayLike | None = None
    ) -> FiniteSignal:
        """Return the law of z = xy of a data set (x_i, y_i).

        Parameters
        ----------
        inputs : array, shape (..., N)
        targets : array, shape (..., N)
            Leading axes are a family of data sets, for instance one per level of label noise.
        probabilities : array, shape (N,), optional
            Uniform by default.

        Returns
        -------
        FiniteSignal

        Examples
        --------
        >>> FiniteSignal.from_data([1.0, 2.0], [1.0, -0.5]).values
        array([ 1., -1.])
        """
        x, y = check.finite_array("inputs", inputs), check.finite_array("targets", targets)
        if x.shape[-1:] != y.shape[-1:]:
            raise ValueError(
                f"inputs and targets must have one entry per sample on their last axis, got shapes "
                f"{x.shape} and {y.shape}."
            )
        x, y = np.broadcast_arrays(x, y)
        return cls(x * y, probabilities, x**2)

    def batched(self, method: SGD, rng: int | np.random.Generator | None = 0) -> FiniteSignal:
        """Return the law of the batch mean: all batches, or a sample of them if they are many.

        Parameters
        ----------
        method : SGD
            How batches are drawn; with importance sampling z_i and x_i² are multiplied by
            w_i = p_i/q_i.
        rng : int, numpy.random.Generator or None
            For the sample of batches.

        Returns
        -------
        FiniteSignal

        Examples
        --------
        >>> batches = FiniteSignal([1.0, 2.0, 4.0]).batched(SGD(batch_size=2))
        >>> batches.values, batches.weights.round(3)
        (array([1.5, 2.5, 3. ]), array([0.333, 0.333, 0.333]))
        """
        if as_method(method).batch_size is None:
            return FiniteSignal(self.mean[..., None], squares=self.mean_square_input[..., None])
        batches = method.batches(self.values.shape[-1], self.weights)
        single = self._reweighted(batches.scales, batches.probabilities)
        if batches.batch_size == 1:
            return single
        return single._means(batches, rng)

    def _reweighted(self, scales: Array, drawn: Array) -> FiniteSignal:
        """Return the law of w·z when the samples are drawn with other probabilities."""
        if (scales == 1).all():
            return self
        used = drawn > 0
        result = FiniteSignal.__new__(FiniteSignal)
        result._set(
            (self.values * scales)[..., used], drawn[used], (self.squares * scales)[..., used]
        )
        return result

    def _means(self, batches: Batches, rng: int | np.random.Generator | None) -> FiniteSignal:
        """Return the law of the mean over the batches; alike samples are counted together."""
        groups, columns = self._groups()
        weights = np.bincount(groups, self.weights).astype(float)
        sizes, size = np.bincount(groups), batches.batch_size
        many = math.comb(sizes.size + size - 1, size)
        if not batches.independent:
            many = min(batches.count, many)
        result = FiniteSignal.__new__(FiniteSignal)
        if many > MOST_LISTED:
            drawn = batches.draw(DRAWN_BATCHES, rng)
            z, s = (part[..., drawn].mean(axis=-1) for part in (self.values, self.squares))
            return drawn_batches(
                z,
                s,
                f"more than {MOST_LISTED} different batches: {DRAWN_BATCHES} were drawn; "
                "a smaller batch_size or fewer samples is exact",
            )
        if sizes.size == batches.n_samples:
            members, shares = batches.listed()
        elif batches.independent:
            chosen, shares = _multinomial(weights, size)
            members = columns[chosen]
        else:
            chosen, shares = _hypergeometric(sizes, size)
            members = columns[chosen]
        z, s = (part[..., members].mean(axis=-1) for part in (self.values, self.squares))
        result._set(z, shares / shares.sum(), s)
        return result

    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the group of each sample, samples of a group being alike, and a member of each."""
        count = self.values.shape[-1]
        rows = np.concatenate([self.values.reshape(-1, count), self.squares.reshape(-1, count)])
        _, first, groups = np.unique(rows, axis=1, return_index=True, return_inverse=True)
        return groups.reshape(-1), first

    def mean_log(self, offset: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
        """Return E log|offset + scale·z| and a bound on its rounding error.

        Parameters
        ----------
        offset, scale : arrays

        Returns
        -------
        value, error : arrays
            For drawn batches the error is half the width of a 95 % confidence interval.
        """
        a, b = np.asarray(offset, dtype=float), np.asarray(scale, dtype=float)
        if not self.drawn:
            return finite_mean_log(a, b, self.values, self.weights)
        blocks = np.split(self.values, DRAWN_BLOCKS, axis=-1)
        weights = np.full(blocks[0].shape[-1], 1 / blocks[0].shape[-1])
        parts = np.array([finite_mean_log(a, b, block, weights)[0] for block in blocks])
        with np.errstate(invalid="ignore"):
            spread = parts.std(axis=0, ddof=1) / math.sqrt(DRAWN_BLOCKS)
        return parts.mean(axis=0), STUDENT * spread

    def exponent(self, offset: float, scale: float) -> Exponent:
        """Return E log|offset + scale·z| with a tight bound on its rounding error.

        Parameters
        ----------
        offset, scale : float

        Returns
        -------
        Exponent

        Examples
        --------
        >>> FiniteSignal([1.0, 3.0]).exponent(1.0, -0.5).value == -math.log(2.0)
        True
        """
        self.require_single()
        if self.drawn:
            return super().exponent(offset, scale)
        return mean_log(shifted(self.weights, offset, scale * self.values), self.method)

    def __repr__(self) -> str:
        """Return the size."""
        return f"{type(self).__name__}({self.values.shape[-1]} values)"


class LabelFlips(FiniteSignal):
    r"""Inputs x = 1 and labels y = 1, flipped to −1 with probability f, afresh at each draw.

    Source: our derivation.

    Parameters
    ----------
    flip_probability : float or array
        f in [0, 1]; an array is a family of laws.

    Raises
    ------
    ValueError
        If it is no probability.

    Examples
    --------
    The exponent of both directions for f = ½ is ½ log|1 − η²|:

    >>> print(LabelFlips(0.5).exponent(1.0, math.sqrt(2) / 2), f"{math.log(0.5) / 2:+.6g}")
    -0.346574 (exact, finite sum) -0.346574
    """

    def __init__(self, flip_probability: float | ArrayLike) -> None:
        self.flip_probability = check.finite_array("flip_probability", flip_probability)
        if ((self.flip_probability < 0) | (self.flip_probability > 1)).any():
            raise ValueError(
                "flip_probability must be between 0 and 1, got values from "
                f"{self.flip_probability.min():g} to {self.flip_probability.max():g}."
            )
        self._set_batch(1)

    def _set_batch(self, batch_size: int) -> None:
        """Become the law of the mean over a batch, which counts its flipped labels."""
        self.batch_size = batch_size
        flips = np.arange(batch_size + 1)
        f = self.flip_probability[..., None]
        logs = xlogy(flips, f) + xlogy(batch_size - flips, 1 - f)
        weights = comb(batch_size, flips) * np.exp(logs)
        self._set(1 - 2 * flips / batch_size, weights, np.ones(batch_size + 1))

    def batched(self, method: SGD, rng: int | np.random.Generator | None = 0) -> LabelFlips:
        """Return the law of the mean of B independent labels.

        Parameters
        ----------
        method : SGD
            Of which only the batch size has a meaning.
        rng
            Not needed: all batches are listed.

        Returns
        -------
        LabelFlips

        Examples
        --------
        >>> LabelFlips(0.5).batched(SGD(batch_size=2)).weights
        array([0.25, 0.5 , 0.25])
        """
        result = LabelFlips(self.flip_probability)
        result._set_batch(self.batch_size * fresh_batch_size(self, method))
        return result


def as_signal(signal: Signal | ArrayLike) -> Signal:
    """Return a law of z from a law or from the values of z, all equally likely.

    Parameters
    ----------
    signal : Signal, frozen distribution of `scipy.stats`, or array, shape (..., N)

    Returns
    -------
    Signal

    Examples
    --------
    >>> as_signal([1.0, -1.0])
    FiniteSignal(2 values)
    """
    if isinstance(signal, Signal):
        return signal
    if hasattr(signal, "rvs"):
        from stabcore.problems.distribution_signals import DistributionSignal

        return DistributionSignal(signal)
    return FiniteSignal(signal)


def drawn_batches(values: Array, squares: Array, status: str) -> FiniteSignal:
    """Return the law of a sample of batch means, and say in its status that it is one."""
    result = FiniteSignal.__new__(FiniteSignal)
    result._set(values, np.full(DRAWN_BATCHES, 1 / DRAWN_BATCHES), squares, status)
    return result


def fresh_batch_size(law: Signal, method: SGD) -> int:
    """Return the batch size of a method that draws from a law, not from a data set."""
    size = as_method(method).batch_size
    plain = SGD(batch_size=size, weight_decay=method.weight_decay, momentum=method.momentum)
    if size is None or method != plain:
        raise ValueError(
            f"method is {method}, but {law!r} is no data set: every sample is new; pass "
            "SGD(batch_size=..., weight_decay=...) and nothing else."
        )
    return size


def _multinomial(weights: Array, size: int) -> tuple[np.ndarray, Array]:
    """Return all multisets of `size` groups and the probability of drawing each."""
    batches = np.array(list(combinations_with_replacement(range(weights.size), size)))
    logs = np.log(weights)[batches].sum(axis=1) - np.log(_runs(batches)).sum(axis=1)
    shares = np.exp(logs + gammaln(size + 1))
    return batches, shares / shares.sum()


def _hypergeometric(sizes: np.ndarray, size: int) -> tuple[np.ndarray, Array]:
    """Return all multisets of groups that a subset of `size` samples can have, and their laws."""
    batches = np.array(list(combinations_with_replacement(range(sizes.size), size)))
    runs = _runs(batches)
    left = sizes[batches] - runs + 1
    batches, runs, left = (part[(left > 0).all(axis=1)] for part in (batches, runs, left))
    logs = (np.log(left) - np.log(runs)).sum(axis=1)
    shares = np.exp(logs - logs.max())
    return batches, shares / shares.sum()


def _runs(batches: np.ndarray) -> np.ndarray:
    """Return, in each ascending row, how often an entry has occurred so far, itself included."""
    runs = np.ones_like(batches)
    for j in range(1, batches.shape[1]):
        runs[:, j] += runs[:, j - 1] * (batches[:, j] == batches[:, j - 1])
    return runs
