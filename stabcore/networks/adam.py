"""Adam, the method; for training only: no exponent of this package speaks of it."""

from __future__ import annotations

from dataclasses import dataclass

from stabcore import _validation as check
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


Adam.__init__ = check.public()(Adam.__init__)  # type: ignore[method-assign]
