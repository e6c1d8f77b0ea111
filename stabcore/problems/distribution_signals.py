r"""Signals whose law is any continuous distribution of SciPy.

The factor a + bz vanishes at r = −a/b. Around r, from half of the probability below it to half of
that above, E log|a + bz| is an integral over u = z − r, in which a + bz = bu is exact, split at the
singularity u = 0 and at a few quantiles. Farther out, where the density itself may be singular, it
is an integral over the probability, ∫ log|a + bz(t)| dt with the quantile function z(t). Tanh-sinh
quadrature (SciPy's) copes with singular ends of all parts. (Our derivation.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import tanhsinh

from stabcore import _validation as check
from stabcore._constants import EPSILON
from stabcore._validation import Array
from stabcore.problems.signals import (
    DRAWN_BATCHES,
    Signal,
    drawn_batches,
    fresh_batch_size,
)
from stabcore.sampling import SGD

QUANTILES = (0.001, 0.02, 0.15, 0.5, 0.85, 0.98, 0.999)  # where the integral is split

NEGLIGIBLE = 1e-15  # probability on one side of the singularity, that needs no care of its own

# 13 digits of every part. From level 4 on SciPy's error estimate can be trusted: below, a part that
# ends close to the singularity was off by 1e-10, 3,000 times as much as estimated.
RULE = {"atol": 1e-13, "minlevel": 4}


class DistributionSignal(Signal):
    r"""z with a continuous law of SciPy: inputs x = 1 and labels from any distribution.

    Source: our derivation.

    Parameters
    ----------
    distribution : frozen continuous distribution of `scipy.stats`
        Anything with its methods: `pdf`, `ppf`, `rvs` and the like.

    Raises
    ------
    TypeError
        If it is something else, a discrete law among others: that is a `FiniteSignal`.

    Examples
    --------
    An exponential law: E log z = −γ_E, Euler's constant.

    >>> from scipy.stats import expon
    >>> print(f"{DistributionSignal(expon()).exponent(0.0, 1.0).value:.10f}")
    -0.5772156649

    Wherever a signal is wanted the distribution itself will do:

    >>> from stabcore import saddle_exponents
    >>> from scipy.stats import laplace
    >>> [exponent.sign for exponent in saddle_exponents(laplace(0.1), 0.7)]
    [-1, -1]
    """

    kind = "deterministic"
    method = "quadrature"

    def __init__(self, distribution: Any) -> None:
        needed = ("pdf", "cdf", "sf", "ppf", "isf", "mean", "std", "rvs")
        if hasattr(distribution, "freeze") or not all(hasattr(distribution, n) for n in needed):
            raise TypeError(
                "distribution must be a frozen continuous distribution of scipy.stats, such as "
                f"scipy.stats.laplace(0.1, 1.0), got {check.short(distribution)}; a discrete law "
                "is FiniteSignal(values, probabilities)."
            )
        mean, deviation = np.asarray(distribution.mean()), np.asarray(distribution.std())
        inner = np.array([distribution.ppf(part) for part in QUANTILES], dtype=float)
        if mean.ndim or inner.ndim > 1 or not np.isfinite(inner).all():
            raise ValueError(
                f"distribution must be a single law with finite quantiles, got {distribution!r}; "
                "give it numbers as parameters."
            )
        self.distribution, self.inner = distribution, inner
        self.mean, self.second_moment = mean, mean**2 + deviation**2
        self.mean_square_input = np.ones(())

    def batched(self, method: SGD, rng: int | np.random.Generator | None = 0) -> Signal:
        """Return the law of the mean of B independent draws: for B > 1 from drawn batches.

        Parameters
        ----------
        method : SGD
            Of which only the batch size has a meaning.
        rng : int, numpy.random.Generator or None
            For the batches.

        Returns
        -------
        DistributionSignal or FiniteSignal
        """
        size = fresh_batch_size(self, method)
        if size == 1:
            return self
        drawn = self.draw(check.generator(rng), (DRAWN_BATCHES, size))[1].mean(axis=1)
        status = f"a batch mean has no density: {DRAWN_BATCHES} batches were drawn"
        return drawn_batches(drawn, np.ones(DRAWN_BATCHES), status)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Return x² and z of independent samples.

        Parameters
        ----------
        rng : numpy.random.Generator
        shape : tuple of int

        Returns
        -------
        squares, values : arrays of that shape
        """
        values = np.asarray(self.distribution.rvs(size=shape, random_state=rng), dtype=float)
        return np.ones(shape), values

    def mean_log(self, offset: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
        """Return E log|offset + scale·z| by quadrature, with SciPy's estimate of its error.

        Parameters
        ----------
        offset, scale : arrays

        Returns
        -------
        value, error : arrays
        """
        a, b = np.broadcast_arrays(np.asarray(offset, dtype=float), np.asarray(scale, dtype=float))
        law, certain = self.distribution, b == 0
        root = -a / np.where(certain, 1.0, b)  # where the factor vanishes
        below, above = law.cdf(root) / 2, law.sf(root) / 2
        inside = ~certain & (np.minimum(below, above) > NEGLIGIBLE)
        below, above = np.where(inside, below, 0.5), np.where(inside, above, 0.5)
        low, high = np.where(inside, law.ppf(below), root), np.where(inside, law.isf(above), root)
        places = np.broadcast_arrays(*self.inner, root)
        middle = [low, *(np.clip(place, low, high) for place in places), high]
        cuts = np.sort(np.stack(middle, axis=-1) - root[..., None], axis=-1)
        columns = root[..., None], b[..., None]
        near = tanhsinh(self._near, cuts[..., :-1], cuts[..., 1:], args=columns, **RULE)
        parts = [
            tanhsinh(partial(_far, quantile), 0.0, end, args=(a, b), **RULE)
            for quantile, end in ((law.ppf, below), (law.isf, above))
        ]
        value = near.integral.sum(axis=-1) + sum(part.integral for part in parts)
        estimate = near.error.sum(axis=-1) + sum(part.error for part in parts)
        known = near.success.all(axis=-1) & parts[0].success & parts[1].success
        with np.errstate(divide="ignore"):
            value = np.where(certain, np.log(np.abs(a)), value)
            error = np.where(known, estimate + 32 * EPSILON * (1 + np.abs(value)), np.inf)
            exact = np.where(a == 0, 0.0, 2 * EPSILON * (1 + 1 / np.abs(a)))
        return value[()], np.where(certain, exact, error)[()]

    def _near(self, u: Array, root: Array, scale: Array) -> Array:
        """Return log|scale·u| times the density at root + u, 0 where it is not finite."""
        with np.errstate(divide="ignore", invalid="ignore"):
            product = np.log(np.abs(scale * u)) * self.distribution.pdf(root + u)
        return np.where(np.isfinite(product), product, 0.0)

    def __repr__(self) -> str:
        """Return the name and the parameters of the distribution."""
        frozen = self.distribution
        name = getattr(getattr(frozen, "dist", None), "name", type(frozen).__name__)
        values = [f"{value:g}" for value in getattr(frozen, "args", ())]
        values += [f"{key}={value:g}" for key, value in getattr(frozen, "kwds", {}).items()]
        return f"DistributionSignal({name}({', '.join(values)}))"


def _far(quantile: Callable[[Array], Array], t: Array, offset: Array, scale: Array) -> Array:
    """Return log|offset + scale·z(t)|, 0 where it is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.abs(offset + scale * quantile(t)))
    return np.where(np.isfinite(logs), logs, 0.0)
