"""float32 against float64: what the summing of batch normalisation costs, beside the formula written out."""

import pytest
import torch

from bench.api import Examples, TaskBatch
from bench.network.build import build
from bench.network.kernels import NATIVE, Kernels, _blocks, native_forward
from bench.registry import create_algorithm
from bench.settings.protocols import load_protocol, resolve
from bench.tasks.data import load_data
from bench.tasks.stream import TaskStream

WRITTEN = Kernels()
CPU = torch.device("cpu")
CASES = {
    "quick maml": ("quick", {"algo": "maml"}, {}),
    "matched maml": ("matched", {"algo": "maml"}, {}),
    "quick reptile": ("quick", {"algo": "reptile"}, {}),
    "paper maml, 5-shot": ("paper", {"algo": "maml", "k_shot": 5}, {}),
    "five steps of 2.0": ("paper", {"algo": "maml", "n_way": 20}, {"inner_steps": 5, "inner_lr": 2.0}),
}


@pytest.mark.parametrize("m", [1, 31, 128, 163, 4 * 196, 25 * 784, 19 * 199])
def test_mean_and_deviation_of_many_rows_are_those_of_float64_to_the_last_digits(m):
    rng = torch.Generator().manual_seed(m)
    x = torch.randn(m, 2, 16, generator=rng) + 3
    w, b = torch.rand(2, 16, generator=rng), torch.randn(2, 16, generator=rng)
    y, mean, rstd = native_forward(x, w, b, 1e-5, 0.0, 0)
    exact = x.double()
    deviation = (exact.var(0, correction=0) + 1e-5).rsqrt()
    normalised = ((exact - exact.mean(0)) * deviation * w + b).relu()
    assert float((mean[0] - exact.mean(0)).abs().max()) < 2e-6
    assert float((rstd[0] / deviation - 1).abs().max()) < 1e-6 if m > 1 else rstd.isfinite().all()
    torch.testing.assert_close(y.double(), normalised, rtol=0, atol=1e-5 if m > 1 else 1e-3)


def test_rows_are_summed_in_blocks_that_hold_them_all():
    assert [_blocks(m) for m in (1, 32, 160, 161, 163, 784)] == [1, 1, 1, 0, 0, 7]
    assert all(m % b == 0 and m // b <= 160 for m in range(1, 5000) if (b := _blocks(m)))


def meta_gradient(config, source, kernels, tasks, dtype):
    """All of it as one vector of float64."""
    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    task_loss, slow = build(config, algorithm, source, CPU, kernels)
    task_loss.network.to(dtype)
    slow = {name: w.to(dtype) for name, w in slow.items()}
    support, query = (Examples(e.x.to(dtype), e.y, e.orders) for e in (tasks.support, tasks.query))
    grads = algorithm.meta_grad(task_loss, slow, TaskBatch(support, query, algorithm.initial_carry(slow))).grads
    return torch.cat([grads[name].double().flatten() for name in slow])


@pytest.mark.parametrize("case", CASES)
def test_a_meta_gradient_is_as_exact_as_by_the_written_formula(case, prepared_glyphs):
    source = load_data("glyphs", prepared_glyphs, prepared_glyphs)
    protocol, shape, settings = CASES[case]
    identity = {"n_way": 5, "k_shot": 1, "seed": 0, **shape, "dataset": "glyphs"}
    config = resolve(load_protocol(protocol), identity, settings, [])
    rotation, episode = config.episodes["meta_train"]
    stream = TaskStream(source.pool("meta_train", rotation, CPU), episode, 0)
    errors = {WRITTEN: [], NATIVE: []}
    for batch in range(6):
        tasks = stream.batch(2 * batch, 2)
        exact = meta_gradient(config, source, WRITTEN, tasks, torch.float64)
        for kernels, found in errors.items():
            off = meta_gradient(config, source, kernels, tasks, torch.float32) - exact
            found.append(float(off.norm() / exact.norm()))
    # a value within rounding of the ReLU's bend makes one batch in some jump, in either
    written, ours = (sorted(found)[2] for found in errors.values())
    assert ours <= 2 * written, errors
