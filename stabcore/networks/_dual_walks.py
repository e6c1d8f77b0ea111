r"""Random products in parameter space that stay in the row space, without J or K.

A vector v = Jᵀa is followed with its dual coordinates a (N, C): a step of SGD is
v ← v − (η/B) Σ_{i∈S} J_iᵀJ_i v, a_i ← a_i − (η/B) J_i v. Rounding gives v a part outside the row
space, which no step shrinks; it does not reach a, as J_i maps it to 0. So now and then v is
computed anew, as Jᵀa. The difference measures what was lost since the last time, and decides how
long the next stretch may be: a stretch that lost too much is done again, shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabcore._random import States
from stabcore._validation import Array
from stabcore.lyapunov._walks import draw_indices
from stabcore.networks._engines import Engine
from stabcore.sampling import SGD, Batches

FIRST_PERIOD = 50  # steps until v is computed anew, to begin with

LONGEST_PERIOD = 2**10

MOST_LOST = 1e-8  # relative difference of v and Jᵀa; an error of 1e-8 in a logarithm

LITTLE_LOST = 1e-11  # below, the next stretch may be longer

BLOCK = 2**21  # numbers that the dual increments of one stretch take, 16 MB


class DualWalk:
    """Replicas of a random product, each with one vector, or with a pair where there is momentum.

    Parameters
    ----------
    engine : Engine
    step_size : float
    method : SGD
    batches : Batches
    states : array of int, shape (R', 4)
        Streams of random numbers.
    duals : array, shape (k, R, N, C)
        k = 2 with momentum, otherwise 1; R − R' more replicas than streams share the first ones.
    """

    def __init__(
        self,
        engine: Engine,
        step_size: float,
        method: SGD,
        batches: Batches,
        states: States,
        duals: Array,
    ) -> None:
        self.engine, self.method, self.batches, self.states = engine, method, batches, states
        self.rate = step_size / batches.batch_size
        per_step = duals[0, :, 0].size * batches.batch_size
        self.longest = min(max(1, BLOCK // per_step), LONGEST_PERIOD)
        self.period = min(FIRST_PERIOD, self.longest)
        self._keep(duals, self._pulled(duals))

    def follow(self, lengths: list[int]) -> Array:
        """Return the log-growth over consecutive stretches, shape (R, stretches)."""
        growth = np.zeros((len(lengths), self.duals.shape[1]))
        for logs, length in zip(growth, lengths, strict=True):
            for drawn in self._drawn(length):
                done = 0
                while done < len(drawn):
                    done += self._advance(drawn[done : done + self.period], logs)
        return np.array(growth.T)

    def _advance(self, drawn: NDArray[np.int64], logs: Array) -> int:
        """Take steps, fewer if too much is lost on the way; return how many."""
        moved, weights = self.engine.steps(self.state, drawn, self.rate, self.method, self.longest)
        duals = self._after(weights, drawn)
        fresh = self._pulled(duals)
        with np.errstate(all="ignore"):
            sizes = np.sqrt((fresh**2).sum(axis=(0, 2)))
            lost = float((np.sqrt(((moved - fresh) ** 2).sum(axis=(0, 2))) / sizes).max())
        steps = len(drawn)
        if not lost <= MOST_LOST:
            if steps == 1:
                raise _no_digits(lost)
            self.period = steps // 2
            return 0
        if lost < LITTLE_LOST and steps == self.period:
            self.period = min(2 * steps, self.longest)
        logs += self._keep(duals, fresh)
        return steps

    def _keep(self, duals: Array, state: Array) -> Array:
        """Scale every replica to length 1, and return the logarithms of the lengths."""
        sizes = np.sqrt((state**2).sum(axis=(0, 2)))
        self.state, self.duals = state / sizes[:, None], duals / sizes[:, None, None]
        return np.asarray(np.log(sizes))

    def _pulled(self, duals: Array) -> Array:
        """Return the vectors of dual coordinates, shape (k, R, D)."""
        return np.array([self.engine.pull(part) for part in duals])

    def _after(self, weights: Array, drawn: NDArray[np.int64]) -> Array:
        """Return the dual coordinates after increments of shape (T, R, B, C)."""
        if not self.method.momentum:
            return np.asarray(self.duals + self._summed(weights, drawn))
        # What a push of the velocity at some time has moved since, and what is left of it.
        beta, nesterov = self.method.momentum, self.method.nesterov
        left: Array = np.asarray(beta ** np.arange(len(drawn) + 1))
        run = np.cumsum(left[:-1])
        reach = 1 + beta * run if nesterov else run
        start = beta * run[-1] * (beta if nesterov else 1.0)
        position, velocity = self.duals
        return np.array(
            [
                position + start * velocity + self._summed(weights * _later(reach), drawn),
                left[-1] * velocity + self._summed(weights * _later(left[:-1]), drawn),
            ]
        )

    def _summed(self, weights: Array, drawn: NDArray[np.int64]) -> Array:
        """Return the sum of increments at the samples that they belong to, shape (R, N, C)."""
        _, runs, samples, outputs = self.duals.shape
        total: Array = np.zeros((runs * samples, outputs))
        rows = drawn + samples * np.arange(runs)[:, None]
        np.add.at(total, rows.ravel(), weights.reshape(-1, outputs))
        return total.reshape(runs, samples, outputs)

    def _drawn(self, steps: int) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of so many steps, whole epochs at a time, shape (T, R, B)."""
        batches, runs = self.batches, self.duals.shape[1]
        epoch = batches.epoch_length
        most = epoch * max(1, self.longest // epoch)
        for done in range(0, steps, most):
            count = min(most, steps - done)
            rows = [self._stream(state, count) for state in self.states]
            yield np.stack(rows + rows[: runs - len(rows)], axis=1)

    def _stream(self, state: NDArray[np.uint64], steps: int) -> NDArray[np.int64]:
        """Return the next batches of a stream, shape (steps, B)."""
        batches, size = self.batches, self.batches.batch_size
        subsets = 0 if batches.independent and not batches.reshuffle else batches.n_samples
        indices = np.empty(steps * size, np.int64)
        draw: Any = draw_indices
        advance = size if batches.reshuffle else 0
        draw(state, size, 1, subsets, advance, *batches.alias, indices, steps)
        return indices.reshape(steps, size)


def _later(response: Array) -> Array:
    """Return a response by the time of the push, the last one first, for all that is pushed."""
    return response[::-1, None, None, None]


def _no_digits(lost: float) -> ValueError:
    return ValueError(
        f"v and Jᵀa differ by {lost:.1g} of their length after a single step: the gradients are "
        "linearly dependent to working precision (a sample given twice?), so that the dual "
        "coordinates keep a part that no step changes, or a step leaves nothing of v. Leave "
        "samples out, or use the kernel (Minimum.from_jacobian), which sees the rank."
    )
