"""sine-mlp: the loss of stacked weights on a regression."""

import pytest
import torch
from waves import loss_on_waves, make_stream, squared


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_loss_is_the_mean_squared_error_of_every_task(activation):
    task_loss = loss_on_waves(activation)
    tasks = make_stream().batch(0, 3)
    fast = {n: w.expand(3, *w.shape) for n, w in task_loss.weights.items()}
    with torch.no_grad():
        expected = [squared(task_loss.network, tasks.query.x[t], tasks.query.y[t]) for t in range(3)]
    torch.testing.assert_close(task_loss(fast, tasks.query), torch.stack(expected))
