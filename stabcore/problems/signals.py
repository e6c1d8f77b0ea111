r"""The law of the signal z = xy of one neuron's data, and E log|a + bz|, on which all depends.

At the saddle u = w = 0 of the loss ½(uwx − y)² the data enter through z alone: u + w is multiplied
by 1 + ηz and u − w by 1 − ηz. A batch of B samples has the mean of z in place of z, weight decay γ
has 1 − ηγ in place of 1. So a law must know its batches and `mean_log`, E log|a + bz|:

* finite laws (data sets, label flips): a finite sum, −∞ where a factor vanishes;
* normal z: with ε ~ N(0, 1), E log|A + Bε| = log B + F(A/B), F(0) = −(γ_E + log 2)/2 and
  F'(t) = √2 Dawson(t/√2) (γ_E is Euler's constant);
* Gaussian data, y = mx + sε: given the inputs of the batch, z is normal with mean mq/B and
  deviation s√q/B, q = Σ x_j² ~ χ²_B, so one quadrature over √q is left. It has a logarithmic
  singularity (for s = 0), or a spike, where the conditional mean of the factor vanishes. The
  quadrature is split there and its nodes cluster at the ends double exponentially.

(Our derivation.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import combinations, combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, hyp1f1
from scipy.stats import binom

from stabcore import _validation as check
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.exponent import Exponent, exact
from stabcore.problems._log_means import (
    EPSILON,
    double_exponential,
    finite_mean_log,
    gaussian_mean_logs,
    normal_logs,
    normal_table,
)
from stabcore.sampling import Sampling

MOST_BATCHES = 200_000  # beyond, the batches are drawn, not listed

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
    method: str
    status = "converged"

    @abstractmethod
    def batched(
        self,
        batch_size: int,
        replacement: bool | None = None,
        rng: int | np.random.Generator | None = 0,
    ) -> Signal:
        """Return the law of the mean of z over a batch.

        Parameters
        ----------
        batch_size : int
            B.
        replacement : bool, optional
            For data sets, as in `Sampling`; the samples of other laws are independent.
        rng : int, numpy.random.Generator or None
            Used where the batches are too many to be listed.

        Returns
        -------
        Signal

        Raises
        ------
        ValueError
            If an argument is invalid.
        """

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

    Raises
    ------
    ValueError
        If an argument is invalid; the message names it.

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
        z = check.finite_array("values", values)
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

    def _set(self, values: Array, weights: Array, squares: Array, *, drawn: bool = False) -> None:
        """Take over arrays that are known to be valid; weights may have leading axes too."""
        self.values, self.weights, self.squares, self.drawn = values, weights, squares, drawn
        self.mean = (values * weights).sum(axis=-1)
        self.second_moment = (values**2 * weights).sum(axis=-1)
        self.mean_square_input = (squares * weights).sum(axis=-1)
        if drawn:
            self.kind = "statistical"
            self.status = (
                f"more than {MOST_BATCHES} different batches: {DRAWN_BATCHES} were drawn; "
                "a smaller batch_size or fewer samples is exact"
            )

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

        Raises
        ------
        ValueError
            If the shapes do not fit together.

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

    def batched(
        self,
        batch_size: int,
        replacement: bool | None = None,
        rng: int | np.random.Generator | None = 0,
    ) -> FiniteSignal:
        """Return the law of the batch mean: all batches, or a sample of them if they are many.

        Parameters
        ----------
        batch_size : int
            B.
        replacement : bool, optional
            As in `Sampling`: by default without replacement for uniform probabilities.
        rng : int, numpy.random.Generator or None
            For the sample of batches.

        Returns
        -------
        FiniteSignal

        Examples
        --------
        >>> batches = FiniteSignal([1.0, 2.0, 4.0]).batched(2)
        >>> batches.values, batches.weights.round(3)
        (array([1.5, 2.5, 3. ]), array([0.333, 0.333, 0.333]))
        """
        sampling = Sampling(self.values.shape[-1], batch_size, self.weights, replacement)
        if batch_size == 1:
            return self
        groups, columns = self._groups()
        weights = np.bincount(groups, self.weights).astype(float)
        sizes = np.bincount(groups)
        many = (
            math.comb(sizes.size + batch_size - 1, batch_size)
            if sampling.independent
            else min(sampling.count, math.comb(sizes.size + batch_size - 1, batch_size))
        )
        result = FiniteSignal.__new__(FiniteSignal)
        if many > MOST_BATCHES:
            batches = sampling.draw(DRAWN_BATCHES, rng)
            z, s = (part[..., batches].mean(axis=-1) for part in (self.values, self.squares))
            result._set(z, np.full(DRAWN_BATCHES, 1 / DRAWN_BATCHES), s, drawn=True)
            return result
        if sampling.independent:
            batches, shares = _multinomial(weights, batch_size)
        else:
            batches, shares = _hypergeometric(sizes, batch_size)
        z, s = (part[..., columns[batches]].mean(axis=-1) for part in (self.values, self.squares))
        result._set(z, shares, s)
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
        used = self.weights > 0
        weights, moved = self.weights[used], scale * self.values[used]
        factors = np.abs(offset + moved)
        if (factors == 0).any():
            return exact(-math.inf, 0.0, self.method, evaluations=factors.size)
        logs = np.log(factors)
        if offset != 0:  # keep the digits of a small step
            small = np.abs(moved) < 0.5 * abs(offset)
            ratio = np.divide(moved, offset, out=np.zeros_like(moved), where=small)
            logs = np.where(small, math.log(abs(offset)) + np.log1p(ratio), logs)
        roundings = np.abs(logs) + 2 * (abs(offset) * (offset != 1) + np.abs(moved)) / factors
        error = 4 * EPSILON * float(weights @ roundings)
        value = math.fsum(weights * logs)
        return exact(value, error, self.method, evaluations=factors.size)

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
        weights = binom.pmf(flips, batch_size, self.flip_probability[..., None])
        self._set(1 - 2 * flips / batch_size, weights, np.ones(batch_size + 1))

    def batched(
        self,
        batch_size: int,
        replacement: bool | None = None,
        rng: int | np.random.Generator | None = 0,
    ) -> LabelFlips:
        """Return the law of the mean of B independent labels.

        Parameters
        ----------
        batch_size : int
        replacement, rng
            Not used.

        Returns
        -------
        LabelFlips

        Examples
        --------
        >>> LabelFlips(0.5).batched(2).weights
        array([0.25, 0.5 , 0.25])
        """
        size = check.integer("batch_size", batch_size)
        result = LabelFlips(self.flip_probability)
        result._set_batch(self.batch_size * size)
        return result


class NormalSignal(Signal):
    r"""z ~ N(mean, deviation²): inputs x = 1 and normal labels, or a normal curvature −z.

    Source: our derivation.

    Parameters
    ----------
    mean, deviation : float or array
        Arrays are a family of laws; `deviation` > 0.

    Raises
    ------
    ValueError
        If a number is not finite or a deviation not positive.

    Examples
    --------
    E log|ε| = −(γ_E + log 2)/2:

    >>> round(NormalSignal(0.0, 1.0).exponent(0.0, 1.0).value, 9)
    -0.635181423
    """

    method = "closed form"

    def __init__(self, mean: float | ArrayLike, deviation: float | ArrayLike) -> None:
        m = check.finite_array("mean", mean)
        self.deviation = check.finite_array("deviation", deviation)
        if (self.deviation <= 0).any():
            raise ValueError(
                f"deviation must be positive, got {self.deviation.min():g}; for a certain value "
                "use FiniteSignal([value])."
            )
        self.mean, self.deviation = np.broadcast_arrays(m, self.deviation)
        self.second_moment = self.mean**2 + self.deviation**2
        self.mean_square_input = np.ones(())

    def batched(
        self,
        batch_size: int,
        replacement: bool | None = None,
        rng: int | np.random.Generator | None = 0,
    ) -> NormalSignal:
        """Return N(mean, deviation²/B).

        Parameters
        ----------
        batch_size : int
        replacement, rng
            Not used.

        Returns
        -------
        NormalSignal
        """
        size = check.integer("batch_size", batch_size)
        return NormalSignal(self.mean, self.deviation / math.sqrt(size))

    def mean_log(self, offset: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
        """Return log B + F(A/B), A = offset + scale·mean, B = |scale|·deviation.

        Parameters
        ----------
        offset, scale : arrays

        Returns
        -------
        value, error : arrays
        """
        centre, spread = (
            np.array(part) for part in np.broadcast_arrays(*self._affine(offset, scale))
        )
        value = np.empty(centre.size)
        normal_logs(centre.reshape(-1), spread.reshape(-1), normal_table(), value)
        return value.reshape(centre.shape)[()], self._error(value).reshape(centre.shape)[()]

    def _affine(self, offset: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
        """Return mean and deviation of offset + scale·z."""
        slope = np.asarray(scale, dtype=float)
        start = np.asarray(offset, dtype=float)
        return np.asarray(start + slope * self.mean), np.abs(slope * self.deviation)

    @staticmethod
    def _error(value: Array) -> Array:
        return np.asarray(1e-14 + 8 * EPSILON * np.abs(value))

    def log_moment(self, q: float, offset: ArrayLike, scale: ArrayLike) -> Array:
        r"""Return log E|A + Bε|^q = log(B^q 2^(q/2) Γ((q+1)/2)/√π ₁F₁(−q/2; 1/2; −A²/(2B²))).

        Parameters
        ----------
        q : float
            q > 0.
        offset, scale : arrays

        Returns
        -------
        array

        Examples
        --------
        E ε² = 1:

        >>> float(NormalSignal(0.0, 1.0).log_moment(2.0, 0.0, 1.0).round(12)) + 0.0
        0.0
        """
        power = check.real("q", q, above=0.0)
        a, b = self._affine(offset, scale)
        known = power / 2 * np.log(2 * b**2) + gammaln((power + 1) / 2) - math.log(math.pi) / 2
        return np.asarray(known + np.log(hyp1f1(-power / 2, 0.5, -((a / b) ** 2) / 2)))

    def __repr__(self) -> str:
        """Return the parameters."""
        return f"NormalSignal({self.mean}, {self.deviation})"


class GaussianSignal(Signal):
    r"""Gaussian data y = mx + sε with independent x, ε ~ N(0, 1): z = mx² + sxε.

    The signal-to-noise ratio is m/s. Inputs of variance σ² have the same z as slope mσ² and noise
    sσ. Independent x and y are slope 0.

    Source: our derivation.

    Parameters
    ----------
    slope, noise : float or array
        m, and s ≥ 0; arrays are a family of laws.

    Raises
    ------
    ValueError
        If a number is not finite or the noise negative.

    Examples
    --------
    Independent standard normal x and y: 1.53006254 is a zero of E log|1 − ηxy|.

    >>> print(f"{GaussianSignal(0.0, 1.0).exponent(1.0, 1.53006254).value:.8f}")
    0.00000000
    """

    kind = "deterministic"
    method = "quadrature"

    def __init__(self, slope: float | ArrayLike, noise: float | ArrayLike) -> None:
        m, s = check.finite_array("slope", slope), check.finite_array("noise", noise)
        if (s < 0).any():
            raise ValueError(f"noise must not be negative, got {s.min():g}; pass its modulus.")
        self.slope, self.noise = np.broadcast_arrays(m, s)
        self._set_batch(1)

    def _set_batch(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.mean = self.slope
        self.mean_square_input = np.ones(())
        self.second_moment = self.slope**2 + (2 * self.slope**2 + self.noise**2) / batch_size

    def batched(
        self,
        batch_size: int,
        replacement: bool | None = None,
        rng: int | np.random.Generator | None = 0,
    ) -> GaussianSignal:
        """Return the law of the mean over B independent samples.

        Parameters
        ----------
        batch_size : int
        replacement, rng
            Not used.

        Returns
        -------
        GaussianSignal
        """
        result = GaussianSignal(self.slope, self.noise)
        result._set_batch(self.batch_size * check.integer("batch_size", batch_size))
        return result

    def mean_log(self, offset: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
        """Return E log|offset + scale·z| by quadrature, with the error estimated by halving it.

        Parameters
        ----------
        offset, scale : arrays

        Returns
        -------
        value, error : arrays
        """
        size = self.batch_size
        arrays = np.broadcast_arrays(
            offset, np.multiply(scale, self.slope) / size, np.multiply(scale, self.noise) / size
        )
        a, slope, noise = (np.array(part, dtype=float) for part in arrays)
        cells = tuple(part.reshape(-1) for part in (a, slope, np.abs(noise)))
        value, error = np.empty(a.size), np.empty(a.size)
        norm = float((size / 2 - 1) * math.log(2) + gammaln(size / 2))
        rule, table = double_exponential(), normal_table()

        def average(part: slice) -> None:
            arguments = *(cell[part] for cell in cells), size, norm, *rule, table
            gaussian_mean_logs(*arguments, value[part], error[part])  # type: ignore[call-arg]

        run_replicas(average, a.size)
        return value.reshape(a.shape)[()], error.reshape(a.shape)[()]

    def __repr__(self) -> str:
        """Return the parameters."""
        return f"GaussianSignal(slope={self.slope}, noise={self.noise})"


def as_signal(signal: Signal | ArrayLike, probabilities: ArrayLike | None = None) -> Signal:
    """Return a law of z from a law or from the values of z.

    Parameters
    ----------
    signal : Signal or array, shape (..., N)
    probabilities : array, shape (N,), optional
        Of the values.

    Returns
    -------
    Signal

    Raises
    ------
    ValueError
        If probabilities are given for a law that has its own.

    Examples
    --------
    >>> as_signal([1.0, -1.0])
    FiniteSignal(2 values)
    """
    if not isinstance(signal, Signal):
        return FiniteSignal(signal, probabilities)
    if probabilities is not None:
        raise ValueError(
            f"probabilities belong to the values of xy, but signal is {signal!r}, which has its "
            "own; leave them out."
        )
    return signal


def _multinomial(weights: Array, size: int) -> tuple[np.ndarray, Array]:
    """Return all multisets of `size` groups and the probability of drawing each."""
    batches = np.array(list(combinations_with_replacement(range(weights.size), size)))
    logs = np.log(weights)[batches].sum(axis=1) - np.log(_runs(batches)).sum(axis=1)
    shares = np.exp(logs + gammaln(size + 1))
    return batches, shares / shares.sum()


def _hypergeometric(sizes: np.ndarray, size: int) -> tuple[np.ndarray, Array]:
    """Return all multisets of groups that a subset of `size` samples can have, and their laws."""
    if (sizes == 1).all():
        batches = np.array(list(combinations(range(sizes.size), size)))
        return batches, np.full(len(batches), 1 / len(batches))
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
