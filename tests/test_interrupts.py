"""Ctrl-C ends what would run for years. Nothing else ends these calls, so that no time matters."""

import signal
import subprocess
import sys

import pytest

ENDLESS = {
    "one run of gradient descent": """
from stabcore import ScalarFactorization
from stabcore.descent import endings
ready()
endings(ScalarFactorization(), [[1.2, 0.9]], 1.3, 10**15)
""",
    "an orbit": """
from stabcore import bifurcation_diagram
from stabcore.descent.lines import BalancedChain
ready()
bifurcation_diagram(BalancedChain(2), [1.9], 0.9, transient=10**15)
""",
    "a random product": """
from stabcore import SGD, Minimum, SGDLaw
from stabcore.lyapunov import monte_carlo
law = SGDLaw(Minimum([[1, 0.5], [0.5, 2]]), 0.3, SGD())
ready()
monte_carlo(law, steps=10**15, replicas=8, rng=0)
""",
    "neurons": """
from stabcore import SGD, FiniteSignal
from stabcore.simulation import neuron_runs
ready()
neuron_runs(FiniteSignal([1.0, -0.5]), 0.5, 0.5, 0.5, SGD(), 10**15, rng=0)
""",
}

READY = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
def ready():
    print("ready", flush=True)
"""


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS.keys())
def test_ctrl_c_ends_it(code):
    process = subprocess.Popen(
        [sys.executable, "-c", READY + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)  # it runs
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert errors.strip().endswith("KeyboardInterrupt")
