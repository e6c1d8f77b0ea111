from collections import Counter
from dataclasses import FrozenInstanceError
from fractions import Fraction
from itertools import permutations, product
from math import comb, factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import stats

from stabcore import GD, SGD
from stabcore._random import (
    alias_table,
    next_index,
    next_subset,
    next_uniform,
    next_word,
    run_replicas,
    stream_states,
)
from stabcore.lyapunov._walks import draw_indices
from stabcore.sampling import as_method, covered_method

MASK = 2**64 - 1
WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=40).filter(any)


def xoshiro256plusplus(state):
    """Advance a list of four Python integers, as Blackman & Vigna's reference does."""
    rotate = lambda x, k: ((x << k) | (x >> (64 - k))) & MASK  # noqa: E731
    result = (rotate((state[0] + state[3]) & MASK, 23) + state[0]) & MASK
    t = (state[1] << 17) & MASK
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= t
    state[3] = rotate(state[3], 45)
    return result


@njit
def indices(state, threshold, alias, count):
    drawn = np.empty(count, np.int64)
    for k in range(count):
        drawn[k] = next_index(state, threshold, alias)
    return drawn


@njit
def subsets(state, n_samples, size, count):
    drawn, permutation = np.empty((count, size), np.int64), np.arange(n_samples)
    for k in range(count):
        next_subset(state, permutation, size)
        drawn[k] = permutation[:size]
    return drawn


def represented(threshold, alias):
    """Return the law that an alias table draws from, exactly."""
    law = [Fraction(0)] * len(alias)
    for column, (share, other) in enumerate(zip(threshold.tolist(), alias.tolist(), strict=True)):
        assert 0 <= share <= 1
        law[column] += Fraction(share) / len(alias)
        law[other] += (1 - Fraction(share)) / len(alias)
    return law


def fits(counts, probabilities):
    """Whether the counts pass a chi-square test at the level 1e-4."""
    used = np.asarray(probabilities) > 0
    assert not np.asarray(counts)[~used].any()
    expected = np.asarray(probabilities)[used] * np.sum(counts)
    return stats.chisquare(np.asarray(counts)[used], expected).pvalue > 1e-4


def listing(sampling):
    """Return the listed batches as pairs of a tuple and its probability."""
    batches, probabilities = sampling.listed()
    return list(zip(map(tuple, batches.tolist()), probabilities.tolist(), strict=True))


def enumerated(sampling):
    """Return the law of the batch as a multiset, from all B-tuples of distinct or any samples."""
    law = Counter()
    for batch in product(range(sampling.n_samples), repeat=sampling.batch_size):
        if sampling.replacement or len(set(batch)) == len(batch):
            law[tuple(sorted(batch))] += float(np.prod(sampling.probabilities[list(batch)]))
    total = sum(law.values())
    return {batch: share / total for batch, share in law.items()}


def test_generator_against_the_reference_in_python_integers():
    seeds = [[1, 2, 3, 4], [0, 0, 0, 1], [MASK, MASK - 1, 12345678901234567890, 2**63]]
    for seed in seeds:
        state, reference = np.array(seed, dtype=np.uint64), list(seed)
        for _ in range(1000):
            assert int(next_word(state)) == xoshiro256plusplus(reference)
        assert state.tolist() == reference


def test_first_word_by_hand():
    """s = (1, 2, 3, 4): rotate(1 + 4, 23) + 1 = 5·2²³ + 1 = 41943041."""
    assert int(next_word(np.array([1, 2, 3, 4], dtype=np.uint64))) == 41943041


def test_uniform_numbers_are_the_top_53_bits():
    state, reference = np.array([9, 8, 7, 6], dtype=np.uint64), [9, 8, 7, 6]
    drawn = [next_uniform(state) for _ in range(1000)]
    assert drawn == [(xoshiro256plusplus(reference) >> 11) / 2**53 for _ in range(1000)]


def test_streams_differ_and_repeat():
    states = stream_states(np.random.default_rng(5), 100)
    assert states.shape == (100, 4)
    assert len({tuple(row) for row in states.tolist()}) == 100
    assert (states == stream_states(np.random.default_rng(5), 100)).all()


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 6), st.lists(st.integers(0, 1000), min_size=64, max_size=64))
def test_alias_table_is_exact_for_dyadic_laws(exponent, weights):
    """Multiples of 2⁻²⁰ over 2ᵏ samples: no operation rounds."""
    count = 2**exponent
    numerators = weights[:count]
    numerators[0] += 2**20 - sum(numerators)
    table = alias_table(np.array(numerators) / 2**20)
    assert represented(*table) == [Fraction(n, 2**20) for n in numerators]


@settings(deadline=None, max_examples=200)
@given(WEIGHTS)
def test_alias_table_is_right_to_rounding_and_never_draws_what_has_probability_zero(weights):
    law = np.array(weights) / sum(weights)
    for found, wanted in zip(represented(*alias_table(law)), law.tolist(), strict=True):
        assert abs(found - Fraction(wanted)) < 1e-15 * len(weights)
        assert wanted > 0 or found == 0


@pytest.mark.parametrize(
    "weights", [[1], [1, 1, 1], [0, 5, 0, 1, 1, 0], [1, 2, 3, 4, 5], [1000, 1, 1]]
)
def test_frequencies_of_samples(weights):
    law = np.array(weights) / sum(weights)
    threshold, alias = alias_table(law)
    compiled = indices(stream_states(np.random.default_rng(3), 1)[0], threshold, alias, 200_000)
    vectorised = SGD().batches(law.size, law).draw(200_000, rng=4)[:, 0]
    for drawn in (compiled, vectorised):
        assert law.size == 1 or fits(np.bincount(drawn, minlength=law.size), law)


@pytest.mark.parametrize(("n_samples", "size"), [(5, 2), (5, 3), (4, 4), (6, 1)])
def test_frequencies_of_subsets(n_samples, size):
    state = stream_states(np.random.default_rng(0), 1)[0]
    compiled = subsets(state, n_samples, size, 50_000)
    vectorised = SGD(batch_size=size, replacement=False).batches(n_samples).draw(50_000, rng=1)
    for drawn in (compiled, vectorised):
        counts = Counter(tuple(sorted(row)) for row in drawn.tolist())
        assert all(len(set(batch)) == size for batch in counts)
        assert len(counts) == comb(n_samples, size)
        assert len(counts) == 1 or fits(list(counts.values()), [1 / len(counts)] * len(counts))


def test_frequencies_of_batches_with_replacement():
    sampling = SGD(batch_size=2).batches(3, [0.5, 0.2, 0.3])
    counts = Counter(tuple(sorted(row)) for row in sampling.draw(100_000, rng=0).tolist())
    law = enumerated(sampling)
    assert fits([counts[batch] for batch in law], list(law.values()))


@pytest.mark.parametrize(
    "sampling",
    [
        SGD().batches(4),
        SGD(batch_size=2).batches(4),
        SGD(batch_size=4).batches(4),
        SGD(batch_size=3, replacement=True).batches(4),
        SGD(batch_size=5, replacement=True).batches(2),
        SGD(batch_size=2).batches(3, [0.5, 0.5, 0.0]),
        SGD(batch_size=3).batches(3, [0.7, 0.1, 0.2]),
        SGD(batch_size=2, replacement=True).batches(1),
    ],
)
def test_batches_against_brute_force(sampling):
    law = dict(listing(sampling))
    assert law == pytest.approx(enumerated(sampling), rel=1e-12)
    assert len(law) == sampling.count


@settings(deadline=None, max_examples=50)
@given(WEIGHTS.filter(lambda w: len(w) <= 6), st.integers(1, 4))
def test_every_law_gives_each_sample_its_share(weights, size):
    """The mean of the batch gradient is the gradient: E (count of i)/B = p_i."""
    sampling = SGD(batch_size=size, replacement=True).batches(
        len(weights), np.array(weights) / sum(weights)
    )
    share = np.zeros(len(weights))
    for batch, probability in listing(sampling):
        share += probability * np.bincount(np.array(batch), minlength=len(weights)) / size
    assert share == pytest.approx(sampling.probabilities, abs=1e-12)


@pytest.mark.parametrize(
    ("n_samples", "size", "replacement"),
    [(1, 1, None), (7, 1, None), (7, 3, False), (5, 5, False), (4, 7, True), (2, 40, True)],
)
def test_arrays_of_all_batches_against_factorials(n_samples, size, replacement):
    """With the multinomial coefficients as integers of any length: 40! is far above 2⁶³."""
    weights = np.arange(n_samples) + 1.0 if replacement else np.ones(n_samples)
    p = weights / weights.sum()
    sampling = SGD(batch_size=size, replacement=replacement).batches(n_samples, p)
    batches, probabilities = sampling.listed()
    assert batches.shape == (sampling.count, size)
    listed = [(tuple(batch), x) for batch, x in zip(batches.tolist(), probabilities, strict=True)]
    assert len(dict(listed)) == sampling.count
    for batch, probability in listed:
        assert list(batch) == sorted(batch)
        orders = factorial(size)
        for index in set(batch):
            orders //= factorial(batch.count(index))
        if sampling.independent:
            assert probability == orders * float(np.prod(p[list(batch)]))
        else:
            assert probability == 1 / comb(n_samples, size)


def test_more_batches_than_are_listed_at_a_time():
    sampling = SGD(batch_size=3, replacement=True).batches(50)
    batches, probabilities = sampling.listed()
    assert len(batches) == comb(52, 3) > 2**14
    assert (batches[1:] @ [2500, 50, 1] > batches[:-1] @ [2500, 50, 1]).all()
    kinds = Counter(len(set(batch)) for batch in batches.tolist())
    assert kinds == {3: comb(50, 3), 2: 50 * 49, 1: 50}
    assert probabilities * 50**3 == pytest.approx(
        [(1, 3, 6)[len(set(batch)) - 1] for batch in batches.tolist()], rel=1e-12
    )


def test_too_many_batches_are_not_listed():
    """There are about 10²⁹⁹ of these."""
    with pytest.raises(ValueError, match=r"above the limit 200,000; use a smaller batch_size"):
        SGD(batch_size=500).batches(1000).listed()


def test_defaults_and_properties():
    assert not SGD(batch_size=2).batches(4).replacement
    assert SGD(batch_size=2).batches(4, [0.1, 0.2, 0.3, 0.4]).replacement
    assert SGD(batch_size=4).batches(4).full_batch
    assert SGD().batches(1).full_batch
    assert not SGD(batch_size=4, replacement=True).batches(4).full_batch
    assert not SGD().batches(4).full_batch
    assert SGD(replacement=False).batches(4, [0.1, 0.2, 0.3, 0.4]).independent


@pytest.mark.parametrize(("n_samples", "size"), [(4, 1), (6, 2), (6, 3), (4, 4), (1, 1)])
def test_reshuffled_epochs_partition_the_data(n_samples, size):
    sampling = SGD(batch_size=size, reshuffle=True).batches(n_samples)
    length = sampling.epoch_length
    assert length == n_samples // size
    drawn = sampling.draw(20 * length - length // 2, rng=0)
    assert drawn.shape == (20 * length - length // 2, size)
    for start in range(0, 19 * length, length):
        assert sorted(drawn[start : start + length].ravel()) == list(range(n_samples))


@pytest.mark.parametrize(("n_samples", "size"), [(3, 1), (4, 2)])
def test_every_order_of_an_epoch_is_equally_likely(n_samples, size):
    """Drawn by NumPy and by the compiled kernel, whose permutation is not reset in an epoch."""
    sampling, epochs = SGD(batch_size=size, reshuffle=True).batches(n_samples), 20_000
    indices = np.empty(epochs * n_samples, np.int64)
    state = stream_states(np.random.default_rng(1), 1)[0]
    steps = epochs * sampling.epoch_length
    draw_indices(state, size, 1, n_samples, size, *sampling.alias, indices, steps)
    for drawn in (sampling.draw(steps, rng=0), indices):
        orders = Counter(map(tuple, drawn.reshape(epochs, n_samples).tolist()))
        assert all(len(set(order)) == n_samples for order in orders)
        assert len(orders) == factorial(n_samples)
        assert fits(list(orders.values()), [1 / len(orders)] * len(orders))


@pytest.mark.parametrize(("n_samples", "size"), [(1, 1), (4, 1), (4, 2), (6, 3), (5, 5)])
def test_epochs_are_those_of_all_permutations(n_samples, size):
    law = Counter()
    for order in permutations(range(n_samples)):
        cut = (order[k : k + size] for k in range(0, n_samples, size))
        law[tuple(tuple(sorted(batch)) for batch in cut)] += Fraction(1, factorial(n_samples))
    listed = list(SGD(batch_size=size, reshuffle=True).batches(n_samples).epochs())
    assert dict(listed) == {epoch: float(share) for epoch, share in law.items()}
    assert len(listed) == len(law)


def test_an_epoch_of_independent_batches_is_one_batch():
    sampling = SGD(batch_size=2).batches(3, [0.5, 0.3, 0.2])
    assert list(sampling.epochs()) == [((batch,), p) for batch, p in listing(sampling)]


def test_one_reshuffled_batch_is_one_without_replacement():
    """Also the last of an epoch."""
    sampling = SGD(batch_size=2, reshuffle=True).batches(4)
    assert dict(listing(sampling)) == dict(listing(SGD(batch_size=2).batches(4)))
    drawn = np.sort(sampling.draw(40_000, rng=0), axis=1)
    for position in (0, 1):
        counts = Counter(map(tuple, drawn[position::2].tolist()))
        assert fits([counts[batch] for batch, _ in listing(sampling)], [1 / 6] * 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 4), "needs a batch_size that divides the 6 samples, got 4; use 3"),
        ((7, 3), "divides the 7 samples, got 3; use 1"),
        ((2, 1, [0.3, 0.7]), "the data have unequal probabilities"),
    ],
)
def test_what_cannot_be_cut_into_epochs(arguments, message):
    n_samples, size, *probabilities = arguments
    with pytest.raises(ValueError, match=message):
        SGD(batch_size=size, reshuffle=True).batches(n_samples, *probabilities)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"momentum": 1.0}, "momentum must be below 1"),
        ({"momentum": -0.1}, "momentum must be at least 0"),
        ({"nesterov": True}, "nesterov=True needs a momentum"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"reshuffle": True, "replacement": True}, "leave replacement and probabilities out"),
        ({"reshuffle": True, "probabilities": [0.5, 0.5]}, "every sample once per epoch"),
        ({"batch_size": None, "replacement": True}, "nothing is drawn"),
        ({"batch_size": None, "probabilities": [0.5, 0.5]}, "nothing is drawn"),
        ({"probabilities": [0.5, 0.6]}, "probabilities must sum to 1"),
    ],
)
def test_methods_that_contradict_themselves(fields, message):
    with pytest.raises(ValueError, match=message):
        SGD(**fields)


def test_misspelt_fields_are_named_with_the_right_one():
    with pytest.raises(TypeError, match=r"SGD\(\) has no option 'batchsize'; .*'batch_size'"):
        SGD(batchsize=4)
    with pytest.raises(TypeError, match=r"method must be an SGD, got 4; pass SGD\(batch_size=4\)"):
        as_method(4)


def test_methods_are_values():
    assert SGD(batch_size=2, probabilities=[0.5, 0.5]) == SGD(
        batch_size=2, probabilities=np.array([0.5, 0.5])
    )
    assert len({SGD(), SGD(batch_size=1), SGD(batch_size=2)}) == 2
    assert repr(SGD()) == "SGD()"
    assert repr(SGD(batch_size=2, momentum=0.9)) == "SGD(batch_size=2, momentum=0.9)"
    assert repr(GD) == "SGD(batch_size=None)"
    with pytest.raises(FrozenInstanceError):
        GD.batch_size = 2


def test_what_is_not_covered_is_refused_by_name():
    covered_method(SGD(weight_decay=0.1), "f", "weight_decay")
    with pytest.raises(NotImplementedError, match=r"f\(\) does not cover weight_decay"):
        covered_method(SGD(weight_decay=0.1), "f")
    with pytest.raises(NotImplementedError, match=r"f\(\) does not cover momentum"):
        covered_method(SGD(momentum=0.5), "f", "weight_decay")


def test_importance_sampling_keeps_the_mean():
    """E w_i ∇l_i over q is Σ p_i ∇l_i; where p and q agree the weights are exactly 1."""
    p, q = np.array([0.2, 0.3, 0.5, 0.0]), (0.25, 0.25, 0.25, 0.25)
    batches = SGD(probabilities=q).batches(4, p)
    assert batches.probabilities.tolist() == list(q)
    assert batches.probabilities * batches.scales == pytest.approx(p, abs=1e-15)
    assert (SGD(probabilities=(0.1,) * 10).batches(10).scales == 1).all()
    with pytest.raises(ValueError, match=r"never draws sample 2, which has probability 0.5"):
        SGD(probabilities=[0.5, 0.5, 0.0, 0.0]).batches(4, p)
    with pytest.raises(ValueError, match="has length 2 but there are 4 samples"):
        SGD(probabilities=[0.5, 0.5]).batches(4, p)


def test_the_whole_data_set_has_the_weights_of_the_loss():
    batches = GD.batches(2, np.array([0.25, 0.75]))
    assert batches.full_batch
    assert batches.batch_size == 2
    assert (batches.scales / 2).tolist() == [0.25, 0.75]


def test_same_seed_same_batches():
    sampling = SGD(batch_size=3).batches(10)
    assert (sampling.draw(50, rng=1) == sampling.draw(50, rng=np.random.default_rng(1))).all()
    assert (sampling.draw(50, rng=1) != sampling.draw(50, rng=2)).any()


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_replicas_are_each_run_once(monkeypatch, workers, count):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(workers), raising=False)
    visits = np.zeros(count, int)

    def visit(part):
        visits[part] += 1

    run_replicas(visit, count)
    assert (visits == 1).all()


def test_an_error_in_a_replica_is_not_swallowed():
    def fail(part):
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run_replicas(fail, 3)


def test_after_an_error_no_slice_is_begun(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(3), raising=False)
    begun = []

    def fail(part):
        begun.append(part)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run_replicas(fail, 1000)
    assert len(begun) <= 3  # one a thread
