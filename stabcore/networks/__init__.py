"""Real networks: small models, training, the minimum next to a trained one (part 4; needs JAX).

A network is any function ``apply(params, x)`` with a pytree of parameters.
"""

from stabcore.networks.curvature import sharpness
from stabcore.networks.interpolation import NetworkMinimum, minimum_of
from stabcore.networks.models import Model, cnn, mlp, transformer
from stabcore.networks.training import Training, train

__all__ = [  # noqa: RUF022
    # from a trained network to its minimum
    "minimum_of",
    "NetworkMinimum",
    # training
    "train",
    "Training",
    # along training
    "sharpness",
    # models
    "Model",
    "mlp",
    "cnn",
    "transformer",
]
