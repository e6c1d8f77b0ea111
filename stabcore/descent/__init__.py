"""What gradient descent does as a map, also when the step is too large.

One step is the map G(θ) = θ − η∇L(θ). Here are its derivative and the step sizes at which it is
singular, its preimages, its basins, and what takes the place of convergence beyond the last stable
step size: cycles, their doublings, and chaos.
"""

from stabcore.descent._certificates import Cycle
from stabcore.descent.basins import (
    ConvergedFraction,
    Ending,
    asymptotic_gradient_norm,
    basin,
    converged_fraction,
    endings,
)
from stabcore.descent.branches import Branches, cycle_branches
from stabcore.descent.cycles import (
    Cycles,
    SearchOutcome,
    find_cycles,
    multipliers,
    refine_orbit,
)
from stabcore.descent.diagrams import BifurcationDiagram, bifurcation_diagram
from stabcore.descent.doublings import FEIGENBAUM, PeriodDoublings, period_doublings
from stabcore.descent.inverse import fold_curves, preimage_counts, preimages
from stabcore.descent.known import balanced_two_cycle, boundary_cycles, bounded_region
from stabcore.descent.lines import BalancedChain, LineMap, ScalarMap
from stabcore.descent.map import bad_step_sizes, gd_jacobian, gd_log_abs_det, gd_map
from stabcore.descent.orbit_exponent import map_exponent

__all__ = [  # noqa: RUF022
    # one step, and where it is singular
    "gd_map",
    "gd_jacobian",
    "gd_log_abs_det",
    "bad_step_sizes",
    # what is sent to a point
    "preimages",
    "preimage_counts",
    "fold_curves",
    # where runs end
    "basin",
    "endings",
    "Ending",
    "converged_fraction",
    "ConvergedFraction",
    "asymptotic_gradient_norm",
    # cycles
    "find_cycles",
    "Cycles",
    "Cycle",
    "SearchOutcome",
    "multipliers",
    "refine_orbit",
    # invariant lines
    "LineMap",
    "BalancedChain",
    "ScalarMap",
    # how cycles change with the step size
    "bifurcation_diagram",
    "BifurcationDiagram",
    "cycle_branches",
    "Branches",
    "period_doublings",
    "PeriodDoublings",
    "FEIGENBAUM",
    "map_exponent",
    # known in closed form
    "balanced_two_cycle",
    "boundary_cycles",
    "bounded_region",
]
