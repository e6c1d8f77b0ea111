"""Adam, the method; for training only: no exponent of this package speaks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stabcore import _validation as check
from stabcore._jax import jax
from stabcore.sampling import SGD, Batches


@dataclass(frozen=True, kw_only=True)
class Adam:
    r"""Adam as in ``torch.optim.Adam``: everything but the step size.

    With the gradient g of a batch, to which γθ is added, in step t

        m ← β₁m + (1 − β₁)g,  s ← β₂s + (1 − β₂)g²,
        θ ← θ − η (m/(1 − β₁^t)) / (√(s/(1 − β₂^t)) + ε),

    all of it entry by entry.

    Source: Kingma & Ba 2015.

    Parameters
    ----------
    batch_size, replacement, reshuffle
        As of `SGD`.
    beta1, beta2 : float
        In [0, 1).
    epsilon : float
        ε > 0.
    weight_decay : float
        γ ≥ 0.

    Raises
    ------
    ValueError
        Also if the arguments that say how batches are drawn contradict each other.

    Examples
    --------
    >>> Adam(batch_size=8).beta1
    0.9
    """

    batch_size: int | None = 1
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    replacement: bool | None = None
    reshuffle: bool = False

    def __post_init__(self) -> None:
        """Validate what can be judged without the data."""
        self._drawing()
        for name in ("beta1", "beta2"):
            if check.non_negative(name, getattr(self, name)) >= 1:
                raise ValueError(
                    f"{name} must be below 1, got {getattr(self, name):g}: the average would never "
                    "forget a gradient; 0.9 and 0.999 are common."
                )
        check.real("epsilon", self.epsilon, above=0.0)

    def _drawing(self) -> SGD:
        return SGD(
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            replacement=self.replacement,
            reshuffle=self.reshuffle,
        )

    def batches(self, n_samples: int) -> Batches:
        """Return the law of the batches on a data set.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        Batches
        """
        return self._drawing().batches(n_samples)

    def preconditioner(self, state: Any, run: int) -> Any:
        """Return what divides the gradient of one run, √(s/(1 − β₂^t)) + ε.

        Parameters
        ----------
        state : TrainingState
            Of a `Training` with this method, after at least one step.
        run : int

        Returns
        -------
        pytree

        Raises
        ------
        ValueError
            If no step was taken, or the training was not one with Adam.
        """
        if state.steps < 1 or len(state.moments) != 2:
            raise ValueError(
                f"state is that of a training with {state.steps} steps and {len(state.moments)} "
                "averages; pass the .state of a Training with Adam, after a step."
            )
        correction = 1 - self.beta2**state.steps
        return jax.tree.map(
            lambda square: np.sqrt(np.asarray(square[run]) / correction) + self.epsilon,
            state.moments[1],
        )


Adam.__init__ = check.public()(Adam.__init__)  # type: ignore[method-assign]
