"""What only the book needs: checks of its claims, the style of its figures, its data.

`Checks` confronts a prediction with a measurement and shows the verdicts as a table, which the
book's ledger of claims reads. `stabcore.companion.plotting` holds colours and the drawings that
several notebooks share. The data are scikit-learn's digits, which need no download.
"""

from stabcore.companion.checks import Checks, Row
from stabcore.companion.data import centred, digit_classes, digit_pair, first_digits

__all__ = [  # noqa: RUF022
    # checks of a notebook
    "Checks",
    "Row",
    # data
    "digit_pair",
    "digit_classes",
    "first_digits",
    "centred",
]
