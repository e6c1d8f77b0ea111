"""The compiled loops of Monte Carlo: vectors and frames under random factors, step by step.

For SGD the vector is the residual r and a step is r ← r − (η/B) Σ_{i∈S} r_i K[:, i]. Two facts
make it fast: the residuals that the next few batches will read can be computed ahead from a few
entries of K, so that eight rows of K are applied in one pass over r; and r stays in the cache.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from stabcore._random import next_index, next_subset

ROWS = 8  # rows of the kernel applied in one pass over a vector
# A vector of a frame of which less than LOST is left beside the others has no digits left.
LOST = 1e-14


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _normalise(vector):  # type: ignore[no-untyped-def]
    """Scale `vector` to length 1 and return the logarithm of its length."""
    size = 0.0  # the sum of moduli first: its square could overflow or vanish
    for j in range(vector.size):
        size += abs(vector[j])
    if size == 0.0:
        return -np.inf
    square, factor = 0.0, 1.0 / size
    for j in range(vector.size):
        vector[j] *= factor
        square += vector[j] * vector[j]
    length = np.sqrt(square)
    factor = 1.0 / length
    for j in range(vector.size):
        vector[j] *= factor
    return np.log(size) + np.log(length)


@njit(inline="always")
def _fill(  # type: ignore[no-untyped-def]
    state, threshold, alias, permutation, used, advance, batch_size, outputs, indices, count
):
    """Write the rows of `count` consecutive batches; return how much of the epoch is used."""
    if permutation.size == 0:
        for m in range(count * batch_size):
            indices[m * outputs] = next_index(state, threshold, alias)
    else:
        for t in range(count):
            rest = permutation[used:]
            next_subset(state, rest, batch_size)
            for b in range(batch_size):
                indices[(t * batch_size + b) * outputs] = rest[b]
            used += advance
            if used == permutation.size:
                used = 0
    if outputs > 1:  # a sample owns that many rows
        for m in range(count * batch_size):
            first = indices[m * outputs] * outputs
            for c in range(outputs):
                indices[m * outputs + c] = first + c
    return used


@njit(inline="always")
def _apply_rows(rows, indices, weights, count, vector):  # type: ignore[no-untyped-def]
    """Subtract Σ_m weights[m] rows[indices[m]] from `vector`, ROWS rows a pass."""
    m = 0
    while m + ROWS <= count:
        a, b = rows[indices[m]], rows[indices[m + 1]]
        c, d = rows[indices[m + 2]], rows[indices[m + 3]]
        e, f = rows[indices[m + 4]], rows[indices[m + 5]]
        g, h = rows[indices[m + 6]], rows[indices[m + 7]]
        wa, wb, wc, wd = weights[m], weights[m + 1], weights[m + 2], weights[m + 3]
        we, wf, wg, wh = weights[m + 4], weights[m + 5], weights[m + 6], weights[m + 7]
        for j in range(vector.size):
            vector[j] -= ((wa * a[j] + wb * b[j]) + (wc * c[j] + wd * d[j])) + (
                (we * e[j] + wf * f[j]) + (wg * g[j] + wh * h[j])
            )
        m += ROWS
    while m < count:
        row, w = rows[indices[m]], weights[m]
        for j in range(vector.size):
            vector[j] -= w * row[j]
        m += 1


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def walk_residual(  # type: ignore[no-untyped-def]
    kernel,
    rate,
    period,
    batch_size,
    outputs,
    subsets,
    advance,
    threshold,
    alias,
    states,
    vectors,
    lengths,
    growth,
):
    """Follow residual vectors; several steps are looked ahead and applied in one pass."""
    rows = batch_size * outputs  # that a step reads and applies
    ahead = ROWS // math.gcd(ROWS, rows)  # so that whole passes of ROWS rows come out
    indices = np.empty(ahead * rows, np.int64)
    weights = np.empty(ahead * rows)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        permutation, used = np.arange(subsets), 0
        _normalise(vector)
        for stretch in range(lengths.size):
            total, since, done = 0.0, 0, 0
            while done < lengths[stretch]:
                now = min(ahead, lengths[stretch] - done, period - since)
                used = _fill(
                    state,
                    threshold,
                    alias,
                    permutation,
                    used,
                    advance,
                    batch_size,
                    outputs,
                    indices,
                    now,
                )
                for t in range(now):
                    start = t * rows
                    for m in range(start, start + rows):
                        row, value = kernel[indices[m]], vector[indices[m]]
                        for earlier in range(start):
                            value -= weights[earlier] * row[indices[earlier]]
                        weights[m] = rate * value
                _apply_rows(kernel, indices, weights, now * rows, vector)
                done += now
                since += now
                if since == period or done == lengths[stretch]:
                    total += _normalise(vector)
                    since = 0
            growth[replica, stretch] = total


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def walk_normal(  # type: ignore[no-untyped-def]
    gradients,
    rate,
    period,
    batch_size,
    outputs,
    subsets,
    advance,
    threshold,
    alias,
    states,
    vectors,
    lengths,
    growth,
):
    """Follow vectors of the normal space: v ← v − rate Σ g_i (g_i·v)."""
    rows = batch_size * outputs
    indices = np.empty(rows, np.int64)
    weights = np.empty(rows)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        permutation, used = np.arange(subsets), 0
        _normalise(vector)
        for stretch in range(lengths.size):
            total = 0.0
            for done in range(1, lengths[stretch] + 1):
                used = _fill(
                    state,
                    threshold,
                    alias,
                    permutation,
                    used,
                    advance,
                    batch_size,
                    outputs,
                    indices,
                    1,
                )
                for m in range(rows):
                    row, value = gradients[indices[m]], 0.0
                    for j in range(vector.size):
                        value += row[j] * vector[j]
                    weights[m] = rate * value
                _apply_rows(gradients, indices, weights, rows, vector)
                if done % period == 0 or done == lengths[stretch]:
                    total += _normalise(vector)
            growth[replica, stretch] = total


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def walk_momentum(  # type: ignore[no-untyped-def]
    matrix,
    residual,
    rate,
    beta,
    nesterov,
    period,
    batch_size,
    outputs,
    subsets,
    advance,
    threshold,
    alias,
    states,
    vectors,
    lengths,
    growth,
):
    """Follow pairs of a position (residuals, or in the normal space) and the last step taken."""
    rows, size = batch_size * outputs, vectors.shape[1] // 2
    indices, weights, pull = np.empty(rows, np.int64), np.empty(rows), np.empty(size)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        position, moved = vector[:size], vector[size:]
        permutation, used = np.arange(subsets), 0
        _normalise(vector)
        for stretch in range(lengths.size):
            total = 0.0
            for done in range(1, lengths[stretch] + 1):
                used = _fill(
                    state,
                    threshold,
                    alias,
                    permutation,
                    used,
                    advance,
                    batch_size,
                    outputs,
                    indices,
                    1,
                )
                for m in range(rows):
                    value = 0.0
                    if residual:
                        value = position[indices[m]]
                    else:
                        row = matrix[indices[m]]
                        for j in range(size):
                            value += row[j] * position[j]
                    weights[m] = rate * value
                pull[:] = 0.0  # −η times the gradient
                _apply_rows(matrix, indices, weights, rows, pull)
                for j in range(size):
                    moved[j] = beta * moved[j] + pull[j]
                    position[j] += pull[j] + beta * moved[j] if nesterov else moved[j]
                if done % period == 0 or done == lengths[stretch]:
                    total += _normalise(vector)
            growth[replica, stretch] = total


@njit(nogil=True, cache=True)
def walk_dense(matrices, log_scales, threshold, alias, states, vectors, lengths, growth):  # type: ignore[no-untyped-def]
    """Follow vectors through dense factors A_m exp(log_scales[m]), renormalised at every step."""
    dimension = matrices.shape[1]
    image = np.empty(dimension)
    for replica in range(len(states)):
        state, vector = states[replica], vectors[replica]
        _normalise(vector)
        for stretch in range(lengths.size):
            total = 0.0
            for _ in range(lengths[stretch]):
                drawn = next_index(state, threshold, alias)
                matrix = matrices[drawn]
                for i in range(dimension):
                    value = 0.0
                    for j in range(dimension):
                        value += matrix[i, j] * vector[j]
                    image[i] = value
                vector[:] = image
                total += log_scales[drawn] + _normalise(vector)
            growth[replica, stretch] = total


@njit(nogil=True, cache=True)
def draw_indices(  # type: ignore[no-untyped-def]
    state, batch_size, outputs, subsets, advance, threshold, alias, indices, count
):
    """Write the rows of `count` batches."""
    permutation = np.arange(subsets)
    _fill(state, threshold, alias, permutation, 0, advance, batch_size, outputs, indices, count)


@njit(nogil=True, cache=True)
def tally_draws(batch_size, subsets, advance, threshold, alias, states, lengths, counts):  # type: ignore[no-untyped-def]
    """Draw samples as `walk_residual`, `walk_normal` and `walk_dense` do, and only count."""
    indices = np.empty(batch_size, np.int64)
    for replica in range(len(states)):
        state = states[replica]
        permutation, used = np.arange(subsets), 0
        for stretch in range(lengths.size):
            for _ in range(lengths[stretch]):
                used = _fill(
                    state, threshold, alias, permutation, used, advance, batch_size, 1, indices, 1
                )
                for m in range(batch_size):
                    counts[replica, stretch, indices[m]] += 1.0 / batch_size


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _orthonormalise(frame, logs):  # type: ignore[no-untyped-def]
    """Apply modified Gram-Schmidt to the rows; add to `logs` how much of each was left."""
    for i in range(len(frame)):
        vector = frame[i]
        logs[i] += _normalise(vector)
        for k in range(i):
            other, overlap = frame[k], 0.0
            for j in range(vector.size):
                overlap += other[j] * vector[j]
            for j in range(vector.size):
                vector[j] -= overlap * other[j]
        left = _normalise(vector)
        if left < np.log(LOST):
            vector[:] = 0.0
            left = -np.inf
        logs[i] += left


@njit(nogil=True, cache=True)
def walk_frame_dense(matrices, log_scales, indices, period, frame, logs):  # type: ignore[no-untyped-def]
    """Follow a frame through the factors matrices[m] exp(log_scales[m]), m in `indices`."""
    size, dimension = frame.shape
    image = np.empty(dimension)
    for step in range(indices.size):
        matrix = matrices[indices[step]]
        for k in range(size):
            for i in range(dimension):
                value = 0.0
                for j in range(dimension):
                    value += matrix[i, j] * frame[k, j]
                image[i] = value
            frame[k] = image
            logs[k] += log_scales[indices[step]]
        if (step + 1) % period == 0 or step + 1 == indices.size:
            _orthonormalise(frame, logs)


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def walk_frame_normal(gradients, rate, rows, indices, period, frame, logs):  # type: ignore[no-untyped-def]
    """Follow a frame of the normal space: v ← v − rate Σ g_i (g_i·v) for every vector v of it."""
    weights = np.empty(rows)
    steps = indices.size // rows
    for step in range(steps):
        batch = indices[step * rows : (step + 1) * rows]
        for k in range(len(frame)):
            vector = frame[k]
            for m in range(rows):
                row, value = gradients[batch[m]], 0.0
                for j in range(vector.size):
                    value += row[j] * vector[j]
                weights[m] = rate * value
            _apply_rows(gradients, batch, weights, rows, vector)
        if (step + 1) % period == 0 or step + 1 == steps:
            _orthonormalise(frame, logs)
