"""How often do intervals contain the truth, and how often is a sign wrong?

`python tests/experiments/coverage.py [runs]` writes coverage.md beside this file. It takes some
minutes, and is no test: the numbers are quoted in the book's page on exponents.
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.special import digamma
from scipy.stats import binomtest

from stabcore import FiniteLaw, Minimum, SGDLaw, lyapunov_exponent
from stabcore.lyapunov import (
    GaussianMatrixLaw,
    closed_form,
    enclosure,
    monte_carlo,
    proven_bounds,
    transfer,
)

RUNS = 200
POLLICOTT = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])
Case = tuple[object, float]


def pollicott(_: np.random.Generator) -> Case:
    return POLLICOTT, 1.1433110351029492458


def gaussian(_: np.random.Generator) -> Case:
    law = GaussianMatrixLaw(4)
    return law, (math.log(2) + digamma(2)) / 2


def in_space(rng: np.random.Generator) -> Case:
    """Positive 3×3 matrices, whose exponent the transfer operator finds to nine digits."""
    law = FiniteLaw(0.2 + np.abs(rng.normal(size=(3, 3, 3))))
    return law, transfer(law, tolerance=1e-8).value


def two_samples(rng: np.random.Generator) -> Case:
    gradients = rng.normal(size=(2, 2))
    law = SGDLaw(gradients @ gradients.T, 3 / np.sum(gradients**2))
    return law, transfer(law, tolerance=1e-6).value


def orthogonal_groups(rng: np.random.Generator) -> Case:
    """Two equal groups of two samples, so that the two largest exponents are equal."""
    gradients = rng.normal(size=(2, 2))
    block, zero = gradients @ gradients.T, np.zeros((2, 2))
    step = 3 / np.sum(gradients**2)
    law = SGDLaw(np.block([[block, zero], [zero, block]]), step)
    return law, transfer(SGDLaw(block, step), tolerance=1e-6).value / 2


def no_drift(_: np.random.Generator) -> Case:
    """Two coordinates whose logarithms are random walks without drift."""
    return FiniteLaw([np.diag([2, 0.5]), np.diag([0.5, 2])]), 0.0


def rare_factor(rng: np.random.Generator) -> Case:
    law = FiniteLaw(rng.normal(size=(2, 2, 2)), [1 - 1e-5, 1e-5])
    return law, transfer(law, tolerance=1e-6).value


FAMILIES: dict[str, Callable[[np.random.Generator], Case]] = {
    "Pollicott's pair": pollicott,
    "Gaussian 4×4 matrices": gaussian,
    "positive 3×3 matrices": in_space,
    "SGD on two samples": two_samples,
    "orthogonal groups with equal exponents": orthogonal_groups,
    "two random walks without drift": no_drift,
    "a factor of probability 1e-5": rare_factor,
}


def simulated(runs: int) -> Iterator[str]:
    """Yield a row per family: what monte_carlo claims, held against the truth."""
    for name, family in FAMILIES.items():
        rng, covered, trusted, wrong = np.random.default_rng(0), 0, 0, 0
        for seed in range(runs):
            law, truth = family(rng)
            result = monte_carlo(law, seed, steps=2_000)
            if not result.converged:
                continue
            trusted += 1
            covered += result.lower <= truth <= result.upper
            wrong += result.sign is not None and result.sign != np.sign(truth)
        if trusted:
            low, high = binomtest(covered, trusted).proportion_ci()
            share = f"{covered / trusted:.1%} ({low:.1%} to {high:.1%})"
        else:
            share = "none is trusted"
        yield f"| {name} | {trusted} of {runs} | {share} | {wrong} |"


def deterministic(runs: int) -> Iterator[str]:
    """Yield a row per tolerance: intervals of the transfer operator against proven ones."""
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-6):
        rng, disjoint, trusted = np.random.default_rng(1), 0, 0
        for _ in range(runs):
            law = FiniteLaw(rng.normal(size=(2, 2, 2)))
            result, proven = transfer(law, tolerance=tolerance), enclosure(law, width=1e-4)
            trusted += result.converged
            disjoint += result.lower > proven.upper or proven.lower > result.upper
        yield f"| {tolerance:g} | {trusted} of {runs} | {disjoint} |"


def proven(count: int) -> str:
    """Return a sentence: of how many random kernels the sign is proven."""
    rng, decided, exact, contradicted = np.random.default_rng(2), 0, 0, 0
    for _ in range(count):
        size = int(rng.choice([2, 3, 5, 10, 20, 30, 50, 100]))
        jacobian = rng.normal(size=(size, 2 * size)) * np.exp(rng.normal(size=(size, 1)) / 2)
        kernel = jacobian @ jacobian.T
        step = np.exp(rng.uniform(math.log(0.3), math.log(6))) / np.diag(kernel).mean()
        law = SGDLaw(Minimum(kernel), step)
        exact += closed_form(law) is not None
        sign = proven_bounds(law).sign
        if sign is None:
            continue
        decided += 1
        contradicted += lyapunov_exponent(law, rng=0, steps=2_000).sign == -sign
    return (
        f"Of {count} random kernels of 2 to 100 samples, at step sizes from 0.3 to 6 in units of "
        f"1/mean(k), the sign of λ is proven for {decided} (and a closed form known for {exact}); "
        f"{contradicted} estimates contradict the proof."
    )


def main() -> None:
    warnings.simplefilter("ignore")
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    text = [
        "# Do the intervals contain the truth?\n",
        "Made by `python tests/experiments/coverage.py`.\n",
        "Statistical intervals (95 %) of 2,000 steps and 32 replicas; only runs that call "
        "themselves converged count.\n",
        "| family | trusted | contain λ (95 % interval) | wrong signs |",
        "|---|---|---|---|",
        *simulated(runs),
        "\nDeterministic intervals of the transfer operator on random pairs of 2×2 matrices, "
        "against proven ones of width 1e-4.\n",
        "| tolerance | converged | disjoint from the proven interval |",
        "|---|---|---|",
        *deterministic(runs),
        "\n" + proven(2 * runs),
        "",
    ]
    Path(__file__).with_name("coverage.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
