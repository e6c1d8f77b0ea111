"""The Checks cell of a notebook: claims confronted with measurements, shown and recorded.

A notebook ends with one `Checks` object. It compares, asserts, shows one small table (rounded, so
that nbval can compare it from machine to machine) and carries its rows as JSON in the notebook's
own output, where the claims ledger of the book reads them. Nothing is typed twice.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Any

from stabcore import _validation as check

MIME = "application/vnd.stabcore.checks+json"

MOST_SIGMAS = 4.0


@dataclass(frozen=True)
class Row:
    """One confronted claim."""

    id: str
    claim: str
    predicted: str
    measured: str
    tolerance: str
    passed: bool | None  # None: nothing was there to be tested


class Checks:
    """Claims, predictions and measurements of one notebook.

    Examples
    --------
    >>> checks = Checks()
    >>> checks.close("root", "the root is √2", 2**0.5, 1.4142136, tolerance=1e-6)
    >>> checks.sigma("coin", "half are heads", 0.5, 0.52, standard_error=0.0165)
    >>> checks.holds("even", "no odd numbers", "0 odd", "0 odd", passed=True)
    >>> checks.conclude()
    the root is √2 | predicted 1.414214 | measured 1.414214 | within 1e-06 | holds
    half are heads | predicted 0.5 | measured 0.52, 1.2 standard errors away | at most 4 | holds
    no odd numbers | predicted 0 odd | measured 0 odd | as stated | holds
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def close(
        self, name: str, claim: str, predicted: float, measured: float, *, tolerance: float
    ) -> None:
        """Claim |measured − predicted| ≤ tolerance (absolute), for deterministic quantities."""
        check.real("tolerance", tolerance, above=0.0)
        decimals = max(0, math.ceil(-math.log10(tolerance)))
        self.holds(
            name,
            claim,
            f"{predicted:.{decimals}f}",
            f"{measured:.{decimals}f}",
            tolerance=f"within {tolerance:.2g}",
            passed=abs(measured - predicted) <= tolerance,
        )

    def sigma(
        self,
        name: str,
        claim: str,
        predicted: float,
        measured: float,
        *,
        standard_error: float,
        tested: bool = True,
    ) -> None:
        """Claim that `measured` is within 4 standard errors of `predicted`, for random ones."""
        check.real("standard_error", standard_error, above=0.0)
        z = abs(measured - predicted) / standard_error
        self.holds(
            name,
            claim,
            f"{predicted:.4g}",
            f"{measured:.4g}, {z:.1f} standard errors away",
            tolerance=f"at most {MOST_SIGMAS:.0f}",
            passed=z <= MOST_SIGMAS,
            tested=tested,
        )

    def holds(
        self,
        name: str,
        claim: str,
        predicted: str,
        measured: str,
        *,
        passed: bool,
        tolerance: str = "as stated",
        tested: bool = True,
    ) -> None:
        """Claim anything else: say what was predicted and measured, and whether it holds.

        `tolerance` is for the table, where the prediction does not say already how much is allowed.
        Where the parameters leave nothing to test the claim on, as no cell of a diagram, pass
        `tested=False`: the verdict is then "not tested" and never "holds".
        """
        if any(row.id == name for row in self.rows):
            raise ValueError(f"the name {name!r} is used twice; every check needs its own.")
        verdict = bool(passed) if tested else None
        self.rows.append(Row(name, claim, predicted, measured, tolerance, verdict))

    def states(
        self,
        name: str,
        claim: str,
        statement: str,
        *,
        passed: bool,
        otherwise: str,
        tested: bool = True,
    ) -> None:
        """Claim a statement; where it does not hold, show `otherwise` as what was measured."""
        measured = statement if passed else otherwise
        self.holds(name, claim, statement, measured, passed=passed, tested=tested)

    def conclude(self) -> Checks:
        """Assert that every claim that was tested holds.

        Returns
        -------
        Checks
            Itself, the table to display.

        Raises
        ------
        AssertionError
            If there is no claim, or one fails; the message shows the failing rows.
        """
        if not self.rows:
            raise AssertionError("a notebook must check something: no claim was recorded.")
        failed = [_line(row) for row in self.rows if row.passed is False]
        if failed:
            raise AssertionError("claims that do not hold:\n" + "\n".join(failed))
        return self

    def __repr__(self) -> str:
        """Return the table as text."""
        width = max((len(row.claim) for row in self.rows), default=0)
        return "\n".join(_line(row, width) for row in self.rows)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return the table as text, as HTML and as data for the claims ledger."""
        head = "".join(
            f"<th>{title}</th>"
            for title in ("claim", "predicted", "measured", "tolerance", "verdict")
        )
        body = "".join(
            f'<tr data-check="{html.escape(row.id)}">'
            + "".join(
                f"<td>{html.escape(text)}</td>"
                for text in (row.claim, row.predicted, row.measured, row.tolerance, _verdict(row))
            )
            + "</tr>"
            for row in self.rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        data = {"checks": [vars(row) for row in self.rows]}
        return {"text/plain": repr(self), "text/html": table, MIME: data}


def _verdict(row: Row) -> str:
    return {True: "holds", False: "fails", None: "not tested"}[row.passed]


def _line(row: Row, width: int = 0) -> str:
    return (
        f"{row.claim:<{width}} | predicted {row.predicted} | measured {row.measured} "
        f"| {row.tolerance} | {_verdict(row)}"
    )
