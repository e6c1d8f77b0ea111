"""The log-growth of vectors and frames under the random products of a law.

Here a law becomes arguments of the compiled loops, replicas are spread over the cores, and it is
decided how often to renormalise: as rarely as the size and the condition of the factors allow. For
SGD with a regular kernel the vectors are residuals. Where K is singular the residual coordinates
have conserved directions in which rounding errors would survive (and, at a stable minimum, win);
there the vectors live in the normal space itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stabcore._random import States, run_replicas
from stabcore._validation import Array
from stabcore.lyapunov._factors import rescaled
from stabcore.lyapunov._walks import (
    draw_indices,
    tally_draws,
    walk_dense,
    walk_frame_dense,
    walk_frame_normal,
    walk_momentum,
    walk_normal,
    walk_residual,
)
from stabcore.lyapunov.laws import AnyLaw, FiniteLaw, Law, MomentumLaw, SampledLaw, SGDLaw

# A vector is renormalised before it can have become shorter or longer by this many digits.
RENORMALISE_DIGITS = 256
BLOCK = 2**16  # numbers drawn at a time
# A frame is orthonormalised before its vectors can have turned so close to each other that this
# many digits of their differences are lost, and at least every FRAME_STEPS steps.
FRAME_DIGITS, FRAME_STEPS = 4.0, 16

Streams = States | list[np.random.Generator]


def log_growth(law: AnyLaw, streams: Streams, vectors: Array, lengths: NDArray[np.int64]) -> Array:
    """Return the log-growth of each replica over consecutive stretches of the given lengths."""
    # Streams and vectors are left where the products end: a second call continues them.
    if isinstance(law, SampledLaw):
        return frame_log_growth(law, streams, vectors[:, None], lengths)[..., 0]
    growth = np.zeros((len(vectors), lengths.size))
    if isinstance(law, FiniteLaw):
        follow: Any = walk_dense
        arguments: tuple[Any, ...] = (*rescaled(law.matrices), *law.alias)
    elif isinstance(law, MomentumLaw):
        follow, plain, method = walk_momentum, law.plain, law.method
        regular = in_residual_coordinates(plain)
        arguments = (
            plain.kernel if regular else plain.gradients,
            regular,
            law.step_size / law.batches.batch_size,
            method.momentum,
            method.nesterov,
            max(1, int(RENORMALISE_DIGITS / _digits_with_momentum(law))),
            *_row_drawing(law),
        )
    else:
        regular = in_residual_coordinates(law)
        arguments = (
            law.kernel if regular else law.gradients,
            law.step_size / law.batches.batch_size,
            max(1, int(RENORMALISE_DIGITS / _digits_per_step(law))),
            *_row_drawing(law),
        )
        follow = walk_residual if regular else walk_normal

    def run(part: slice) -> None:
        follow(*arguments, streams[part], vectors[part], lengths, growth[part])

    run_replicas(run, len(vectors))
    return growth


def frame_log_growth(
    law: AnyLaw, streams: Streams, frames: Array, lengths: NDArray[np.int64]
) -> Array:
    """Return the log-growth of each vector of each frame, shape (replicas, stretches, vectors)."""
    growth = np.zeros((len(frames), lengths.size, frames.shape[1]))
    period = _frame_period(law)

    def run(part: slice) -> None:
        for replica in range(part.start, part.stop):
            stream, frame = streams[replica], frames[replica]
            for length, logs in zip(lengths.tolist(), growth[replica], strict=True):
                for steps in _blocks(law, length):
                    _follow_frame(law, stream, steps, period, frame, logs)

    run_replicas(run, len(frames))
    return growth


def count_draws(law: Law | MomentumLaw, states: States, lengths: NDArray[np.int64]) -> Array:
    """Return how often each product draws each index, shape (replicas, stretches, indices)."""
    # What `log_growth` draws is drawn again, without the products: its kernels need not count.
    tally: Any = tally_draws
    counts = np.zeros((len(states), lengths.size, index_probabilities(law).size))

    def run(part: slice) -> None:
        tally(*_drawing(law), states[part], lengths, counts[part])

    run_replicas(run, len(states))
    return counts


def index_probabilities(law: Law | MomentumLaw) -> Array:
    return law.probabilities if isinstance(law, FiniteLaw) else law.batches.probabilities


def draws_per_step(law: Law | MomentumLaw) -> int:
    """Return how many indices one step draws."""
    return int(_drawing(law)[0])


def whole_epochs(law: AnyLaw, steps: int) -> int:
    """Return `steps` rounded up to whole epochs: what is drawn in two stretches is independent."""
    epoch = _epoch_length(law)
    return -(-steps // epoch) * epoch


def replica_streams(law: AnyLaw, states: States) -> Streams:
    """Return a source of randomness per replica."""
    if isinstance(law, SampledLaw):
        return [np.random.default_rng(words) for words in states]
    return states


def in_residual_coordinates(law: SGDLaw) -> bool:
    return law.dimension == len(law.kernel) and bool(law.batches.scales.all())


def _epoch_length(law: AnyLaw) -> int:
    return law.batches.epoch_length if isinstance(law, SGDLaw | MomentumLaw) else 1


def _drawing(law: Law | MomentumLaw) -> tuple[Any, ...]:
    """Return batch size, samples drawn from without replacement, advance in an epoch, alias."""
    if isinstance(law, FiniteLaw):
        return (1, 0, 0, *law.alias)
    batches = law.batches
    return (
        batches.batch_size,
        0 if batches.independent and not batches.reshuffle else batches.n_samples,
        batches.batch_size if batches.reshuffle else 0,
        *batches.alias,
    )


def _row_drawing(law: Law | MomentumLaw) -> tuple[Any, ...]:
    """Return the same with the number of rows that a sample owns in the second place."""
    batch_size, *others = _drawing(law)
    return (batch_size, 1 if isinstance(law, FiniteLaw) else law.minimum.n_outputs, *others)


def _digits_per_step(law: SGDLaw) -> float:
    """Return how many decimal digits the length of a vector can change by in one step."""
    scaled = law.step_size * law.curvatures
    grown = math.log10(1 + float(scaled.max()))
    if law.batches.batch_size > 1 or law.minimum.n_outputs > 1:
        return max(16.0, grown)
    # One sample multiplies one direction by 1 − ηk_i; beyond 16 digits it is rounding that is left.
    lost = -math.log10(max(1e-16, float(np.abs(1 - scaled).min())))
    return max(lost, grown, 4.0)


def _digits_with_momentum(law: MomentumLaw) -> float:
    """Return how many decimal digits the length of a vector can change by in one step."""
    beta = law.method.momentum
    largest = 2 + beta + law.step_size * float(law.plain.curvatures.max()) * (1 + beta)
    if law.method.nesterov:  # may be singular; beyond 16 digits is rounding
        return max(16.0, math.log10(largest))
    return math.log10(largest**2 / beta)  # the smallest singular value is at least β/largest


def _follow_frame(
    law: AnyLaw, stream: Any, steps: int, period: int, frame: Array, logs: Array
) -> None:
    """Draw the factors of a block of steps and add the log-growth of `frame` under them."""
    if isinstance(law, SampledLaw):
        factors = rescaled(law.draw(steps, stream))
        walk_frame_dense(*factors, np.arange(steps), period, frame, logs)
        return
    batch_size, outputs, *drawing = _row_drawing(law)
    indices = np.empty(steps * batch_size * outputs, np.int64)
    draw: Any = draw_indices
    draw(stream, batch_size, outputs, *drawing, indices, steps)
    if isinstance(law, FiniteLaw):
        walk_frame_dense(*rescaled(law.matrices), indices, period, frame, logs)
    else:
        assert isinstance(law, SGDLaw)  # frames with momentum are those of its FiniteLaw
        rate, rows = law.step_size / batch_size, batch_size * outputs
        walk_frame_normal(law.gradients, rate, rows, indices, period, frame, logs)


def _blocks(law: AnyLaw, steps: int) -> Iterator[int]:
    """Yield the numbers of steps that are drawn at a time, whole epochs each."""
    epoch = _epoch_length(law)
    numbers = law.dimension**2 if isinstance(law, SampledLaw) else _drawing(law)[0]
    most = max(1, BLOCK // (numbers * epoch)) * epoch
    for done in range(0, steps, most):
        yield min(most, steps - done)


def _frame_period(law: AnyLaw) -> int:
    """Return how many steps may pass between two orthonormalisations."""
    # Each factor can worsen the condition of a frame by its own condition number.
    if isinstance(law, FiniteLaw):
        condition = float(np.linalg.cond(law.matrices[law.probabilities > 0]).max())
    elif isinstance(law, SGDLaw) and law.batches.batch_size == 1:
        drawn = law.batches.probabilities > 0
        factors = np.abs(1 - law.step_size * law.curvatures[drawn])
        with np.errstate(divide="ignore"):
            largest, least = factors.max(axis=1, initial=1.0), factors.min(axis=1, initial=1.0)
            condition = float((largest / least).max())
    else:
        return 1
    digits = max(math.log10(condition), FRAME_DIGITS / FRAME_STEPS)
    return max(1, int(FRAME_DIGITS / digits))
