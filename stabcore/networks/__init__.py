"""Real networks: small models, training, the minimum next to a trained one (part 4; needs JAX).

A network is any function ``apply(params, x)`` with a pytree of parameters.
"""

from stabcore.networks.adam import Adam
from stabcore.networks.callables import minimum_of_functions
from stabcore.networks.curvature import batch_sharpness, sharpness
from stabcore.networks.interpolation import NetworkMinimum, minimum_of
from stabcore.networks.large_networks import without_kernel
from stabcore.networks.matrix_free import JacobianProducts, MatrixFreeMinimum
from stabcore.networks.models import Model, cnn, mlp, transformer
from stabcore.networks.training import Training, TrainingState, train
from stabcore.networks.units import unit_law

__all__ = [  # noqa: RUF022
    # from a trained network to its minimum
    "minimum_of",
    "minimum_of_functions",
    "NetworkMinimum",
    # without the kernel
    "without_kernel",
    "MatrixFreeMinimum",
    "JacobianProducts",
    # training
    "train",
    "Training",
    "TrainingState",
    "Adam",
    # along training
    "sharpness",
    "batch_sharpness",
    # at a saddle
    "unit_law",
    # models
    "Model",
    "mlp",
    "cnn",
    "transformer",
]
