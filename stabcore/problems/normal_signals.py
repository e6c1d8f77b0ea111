r"""Signals with a density: normal z, and z = xy of regression data with Gaussian inputs.

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

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, hyp1f1, logsumexp

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._random import run_replicas
from stabcore._validation import Array
from stabcore.problems._log_means import (
    double_exponential,
    gaussian_mean_logs,
    normal_logs,
    normal_table,
)
from stabcore.problems.signals import Signal, fresh_batch_size
from stabcore.sampling import SGD

HIGH_ORDER = 50.0  # of a moment, beyond which ₁F₁ loses digits


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
        m = check.moderate_array("mean", mean)
        self.deviation = check.moderate_array("deviation", deviation)
        if (self.deviation <= 0).any():
            raise ValueError(
                f"deviation must be positive, got {self.deviation.min():g}; for a certain value "
                "use FiniteSignal([value])."
            )
        self.mean, self.deviation = np.broadcast_arrays(m, self.deviation)
        self.second_moment = self.mean**2 + self.deviation**2
        self.mean_square_input = np.ones(())

    def batched(self, method: SGD, rng: int | np.random.Generator | None = 0) -> NormalSignal:
        """Return N(mean, deviation²/B).

        Parameters
        ----------
        method : SGD
            Of which only the batch size has a meaning.
        rng
            Not needed.

        Returns
        -------
        NormalSignal
        """
        size = fresh_batch_size(self, method)
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
        # E log|A + Bε| changes by less than |dA|/B; A is known to roundings of what it is made of.
        known = 1 + np.abs(offset) + np.abs(np.multiply(scale, self.mean))
        with np.errstate(divide="ignore"):
            moved = 2 * EPSILON * known / np.maximum(spread, np.abs(centre))
        error = 1e-14 + 8 * EPSILON * np.abs(value.reshape(centre.shape)) + moved
        return value.reshape(centre.shape)[()], error[()]

    def _affine(self, offset: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
        """Return mean and deviation of offset + scale·z."""
        slope = np.asarray(scale, dtype=float)
        start = np.asarray(offset, dtype=float)
        return np.asarray(start + slope * self.mean), np.abs(slope * self.deviation)

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
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            function = hyp1f1(-power / 2, 0.5, -((a / b) ** 2) / 2)
            value = known + np.log(function)
        lost = ~(np.isfinite(value) & (power < HIGH_ORDER))
        return np.where(lost, self._peaks(power, a / b) + power * np.log(b), value)[()]

    @staticmethod
    def _peaks(q: float, t: Array) -> Array:
        """Return log E|t + ε|^q, by the trapezoidal rule around the two maxima of the integrand."""
        # q log|t + x| − x²/2 is concave on both sides of −t, with a second derivative below −1, so
        # that nine units from its maximum 10⁻¹⁸ of it are left.
        t = np.asarray(t, dtype=float)[..., None]
        offsets = np.linspace(-9, 9, 4001)
        logs = []
        for side in (-1, 1):
            peak = (-t + side * np.sqrt(t**2 + 4 * q)) / 2
            x = peak + offsets
            beyond = np.where((t + x) * side > 0, t + x, np.nan)
            logs.append(np.nan_to_num(q * np.log(np.abs(beyond)) - x**2 / 2, nan=-np.inf))
        total = logsumexp(np.concatenate(logs, axis=-1), axis=-1)
        return np.asarray(total + math.log(offsets[1] - offsets[0]) - math.log(2 * math.pi) / 2)

    def __repr__(self) -> str:
        """Return the parameters."""
        return f"NormalSignal({self.mean}, {self.deviation})"


class RegressionSignal(Signal):
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

    >>> print(f"{RegressionSignal(0.0, 1.0).exponent(1.0, 1.53006254).value:.8f}")
    0.00000000
    """

    kind = "deterministic"
    method = "quadrature"

    def __init__(self, slope: float | ArrayLike, noise: float | ArrayLike) -> None:
        m, s = check.moderate_array("slope", slope), check.moderate_array("noise", noise)
        if (s < 0).any():
            raise ValueError(f"noise must not be negative, got {s.min():g}; pass its modulus.")
        self.slope, self.noise = np.broadcast_arrays(m, s)
        self._set_batch(1)

    def _set_batch(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.mean = self.slope
        self.mean_square_input = np.ones(())
        self.second_moment = self.slope**2 + (2 * self.slope**2 + self.noise**2) / batch_size

    def batched(self, method: SGD, rng: int | np.random.Generator | None = 0) -> RegressionSignal:
        """Return the law of the mean over B independent samples.

        Parameters
        ----------
        method : SGD
            Of which only the batch size has a meaning.
        rng
            Not needed.

        Returns
        -------
        RegressionSignal
        """
        result = RegressionSignal(self.slope, self.noise)
        result._set_batch(self.batch_size * fresh_batch_size(self, method))
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
        return f"RegressionSignal(slope={self.slope}, noise={self.noise})"
