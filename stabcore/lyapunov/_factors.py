"""The factors of a law: listed and rescaled, split, and refused if they are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

from stabcore._validation import Array
from stabcore.lyapunov.laws import FiniteLaw, Law, MomentumLaw, SGDLaw, require_law
from stabcore.problems.minimum import Minimum


def require_independent_steps(law: Law) -> None:
    """Refuse what is not a law, and reshuffled epochs, whose steps depend on each other."""
    require_law(law)
    if isinstance(law, SGDLaw) and law.batches.epoch_length > 1:
        raise ValueError(
            "law has reshuffled epochs, and this is computed for independent steps only; pass "
            "law.epochs(), whose factors are whole epochs, or a method with reshuffle=False."
        )


def listed(law: Law, limit: int = 100_000) -> tuple[Array, Array, Array]:
    """Return the factors that are drawn, rescaled, the logarithms, and the probabilities."""
    finite = law if isinstance(law, FiniteLaw) else law.finite(limit)
    used = finite.probabilities > 0
    return *rescaled(finite.matrices[used]), finite.probabilities[used]


def split(law: Law | MomentumLaw) -> Sequence[Law | MomentumLaw]:
    """Return the laws into which the products of a law split, one per invariant subspace."""
    if isinstance(law, MomentumLaw):
        plain = split(law.plain)
        if len(plain) == 1:
            return [law]
        minima = [part.minimum for part in plain if isinstance(part, SGDLaw)]
        return [MomentumLaw(minimum, law.step_size, law.method) for minimum in minima]
    # Those of SGD are the groups of mutually orthogonal gradients: all gradients but those of the
    # group are replaced by 0.
    if isinstance(law, FiniteLaw):
        linked = law.matrices[law.probabilities > 0].any(axis=0)
        count, labels = connected_components(linked, directed=False)
        groups = [np.flatnonzero(labels == label) for label in range(count)]
        if count == 1:
            return [law]
        return [
            FiniteLaw(law.matrices[:, group[:, None], group], law.probabilities) for group in groups
        ]
    kernel = law.minimum.kernel
    blocks = [block for block in law.minimum.blocks if kernel[block, block].any()]
    if len(blocks) == 1:
        return [law]
    parts: list[Law] = []
    for block in blocks:
        own = np.zeros_like(kernel)
        own[np.ix_(block, block)] = kernel[np.ix_(block, block)]
        minimum = Minimum(own, law.minimum.probabilities, outputs=law.minimum.n_outputs)
        parts.append(SGDLaw(minimum, law.step_size, law.method))
    return parts


def relative_powers(probabilities: Array, logs: Array, q: float) -> tuple[Array, float]:
    """Return p_m s_m^q, divided by the largest s_m^q, and the logarithm of that; log s = `logs`."""
    shift = q * float(logs.max())
    return probabilities * np.exp(q * logs - shift), shift


def rescaled(matrices: Array) -> tuple[Array, Array]:
    """Return the matrices, each divided by its largest entry, and the logarithms of these."""
    sizes = np.abs(matrices).max(axis=(1, 2))
    sizes[sizes == 0] = 1.0
    return matrices / sizes[:, None, None], np.log(sizes)
