import numpy as np
import pytest
from product_models import kernel

from stabcore import SGD, FiniteLaw, Minimum, SGDLaw
from stabcore.lyapunov import (
    determinant_bound,
    subadditive_bound,
)

POLLICOTT = FiniteLaw([[[2, 1], [1, 1]], [[3, 1], [2, 1]]])

POLLICOTT_EXPONENT = 1.1433110351029492458


def test_bounds_enclose_a_known_exponent():
    uppers = [subadditive_bound(POLLICOTT, n) for n in (1, 2, 4, 8, 16)]
    values = [bound.value for bound in uppers]
    assert values == sorted(values, reverse=True)
    assert determinant_bound(POLLICOTT).value == pytest.approx(0, abs=1e-14)
    assert values[-1] - POLLICOTT_EXPONENT == pytest.approx(0, abs=0.03)
    for bound in [*uppers, determinant_bound(POLLICOTT)]:
        assert bound.lower <= POLLICOTT_EXPONENT <= bound.upper
        assert bound.sign in (None, 1)


def test_determinant_of_sgd():
    matrix = kernel(17, 3)
    expected = np.log(np.abs(1 - 0.8 * np.diag(matrix))).mean() / 3
    assert determinant_bound(SGDLaw(matrix, 0.8)).value == pytest.approx(expected)
    law = SGDLaw(Minimum(matrix, [0.2, 0.3, 0.5]), 0.8, SGD(batch_size=2))
    bound, finite = determinant_bound(law), determinant_bound(law.finite())
    assert bound.value == pytest.approx(finite.value, abs=1e-13)
    assert bound.lower <= finite.value + 1e-14
