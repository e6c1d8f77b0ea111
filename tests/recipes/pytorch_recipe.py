"""PyTorch: the module evaluates and differentiates itself, on tensors in double precision."""

import torch
from digits import batches, x, y

from stabcore import SGD, stability
from stabcore.networks.callables import minimum_of_functions

torch.manual_seed(0)
x, y = torch.tensor(x), torch.tensor(y)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
loss = torch.nn.MSELoss()
optimiser = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
for batch in batches:
    optimiser.zero_grad()
    loss(model(x[batch]), y[batch]).backward()
    optimiser.step()


# The verdict begins.
def output(params, one):
    return torch.func.functional_call(model, params, (one[None],))[0]


outputs, gradients = (torch.vmap(f, (None, 0)) for f in (output, torch.func.jacrev(output)))
params = dict(model.named_parameters())
minimum = minimum_of_functions(outputs, gradients, params, x, y, loss="mean_square")
print(minimum)
print(stability(minimum, 0.5, SGD(batch_size=4, momentum=0.9), rng=0))
# The verdict ends.
