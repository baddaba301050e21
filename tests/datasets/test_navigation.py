"""Navigation: which goals and disturbances are drawn, where a policy leads, and that its return is differentiable."""

import math

import numpy as np
import pytest
import torch
from reference_streams import chi_square, reference_bits, threshold
from torch import nn

from bench.api import BenchError, Episode
from bench.network.build import backbone_of, build, way_of
from bench.network.model import OWN
from bench.registry import create_algorithm, create_dataset
from bench.settings.config import RunConfig
from bench.tasks.stream import TaskStream
from datasets.navigation import PUSH, SIDE, SPEED, Walk

CPU = torch.device("cpu")
HORIZON = 6
GOALS = create_dataset("navigation", horizon=HORIZON).load(None, None)
EPISODE = Episode(1, 3, 2)


class DoubleStream(TaskStream):
    dtype = torch.float64


def stream_of(split="meta_train", seed=0, episode=EPISODE):
    return DoubleStream(GOALS.pool(split, "none", CPU), episode, seed)


def config_of(algo="maml", **changes):
    own = {"hyperparameters": {}, "backbone": "sine-mlp", "backbone_options": {"hidden": 5, "activation": "tanh"}}
    shape = {"n_way": 1, "k_shot": 3, "k_query": 2, "dataset": "navigation", "dataset_options": {"horizon": HORIZON}}
    return RunConfig(algo=algo, **{**own, **shape, **changes})


def always(action):
    """A policy that does one thing everywhere."""
    policy = nn.Linear(2, 2).double()
    with torch.no_grad():
        policy.weight.zero_()
        policy.bias.copy_(torch.tensor(action))
    return Walk(policy)


def tries(goal, pushes=None, n=1):
    x = torch.zeros(n, 1 + HORIZON, 2, dtype=torch.float64)
    x[:, 0] = torch.tensor(goal, dtype=torch.float64)
    if pushes is not None:
        x[:, 1:] = pushes
    return x


def test_goals_and_disturbances_equal_the_numpy_reference():
    stream = stream_of(seed=7)
    for number in (0, 255, 256, 2**32 + 5):
        task = stream.batch(number, 1)
        goal = (np.array(reference_bits(stream.key, number, 0, 2)) + 0.5) / 2**32 - 0.5
        words = np.array(reference_bits(stream.key, number, 1, 5 * HORIZON)).reshape(5, HORIZON)
        halves = np.stack([words % 2**16, words // 2**16], axis=-1)
        pushes = 0.02 * (2 * (halves + 0.5) / 2**16 - 1)
        x = torch.cat([task.support.x, task.query.x], dim=1)[0].numpy()
        np.testing.assert_allclose(x[:, 0], np.broadcast_to(goal, (5, 2)), rtol=0, atol=1e-15)
        np.testing.assert_allclose(x[:, 1:], pushes, rtol=0, atol=1e-15)
        assert not task.support.y.any()
        assert (task.support.y.shape, task.query.y.shape) == ((1, 3), (1, 2))


def test_other_seeds_and_splits_have_other_goals_and_a_batch_none():
    streams = [stream_of(), stream_of(seed=1), stream_of("meta_val"), stream_of("meta_test")]
    assert len({stream.digest(20) for stream in streams}) == 4
    whole, part = stream_of().batch(250, 12), stream_of().batch(253, 7)
    assert torch.equal(part.query.x, whole.query.x[3:10])


def test_goals_are_uniform_in_the_square_and_disturbances_as_large_as_said():
    tasks = stream_of().batch(0, 3000)
    goal = tasks.support.x[:, 0, 0]  # [T, 2]
    assert 0.49 < goal.abs().max() < SIDE / 2
    cells = ((goal + SIDE / 2) * 5).long().clamp(0, 4)
    assert chi_square(cells[:, 0] * 5 + cells[:, 1], 25) < threshold(25)
    pushes = tasks.support.x[:, :, 1:]
    assert 0.99 * PUSH < pushes.abs().max() < PUSH
    assert pushes.mean().abs() < 5 * PUSH / math.sqrt(3 * pushes.numel())


def test_a_walk_equals_a_plain_loop_in_numpy():
    rng = torch.Generator().manual_seed(0)
    policy = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = torch.randn(3, 1 + HORIZON, 2, generator=rng, dtype=torch.float64)
    w1, b1, w2, b2 = (p.detach().numpy() for p in policy.parameters())
    expected = []
    for goal, *pushes in x.numpy():
        at, cost = np.zeros(2), 0.0
        for push in pushes:
            at = at + 0.1 * np.tanh(w2 @ np.maximum(w1 @ at + b1, 0) + b2) + push
            cost += ((at - goal) ** 2).sum() / HORIZON
        expected.append([cost])
    with torch.no_grad():
        np.testing.assert_allclose(Walk(policy)(x).numpy(), expected, rtol=1e-12)


def test_a_constant_action_leads_to_a_known_place():
    """After t steps of a the point is at t a; its mean squared distance to 3 a is known: (4+1+0+1+4+9) a^2 / 6."""
    action = math.atanh(0.5)
    walk = always([action, 0.0])
    positions = walk.positions(tries([0.15, 0.0]))
    expected = torch.tensor([[0.05 * t, 0.0] for t in range(1, HORIZON + 1)], dtype=torch.float64)
    torch.testing.assert_close(positions[0], expected)
    assert walk(tries([0.15, 0.0])).item() == pytest.approx(19 * 0.05**2 / 6)


def test_no_action_moves_the_point_faster_than_allowed():
    positions = always([50.0, -50.0]).positions(tries([0.0, 0.0]))
    assert positions[0, -1].tolist() == pytest.approx([HORIZON * SPEED, -HORIZON * SPEED])


def test_nothing_is_lost_where_the_point_stands_on_its_goal_and_its_square_where_it_is_pushed_off():
    assert always([0.0, 0.0])(tries([0.0, 0.0], n=2)).tolist() == [[0.0], [0.0]]
    pushes = torch.zeros(HORIZON, 2, dtype=torch.float64)
    pushes[-1] = torch.tensor([0.03, 0.04])
    assert always([0.0, 0.0])(tries([0.0, 0.0], pushes)).item() == pytest.approx(0.05**2 / HORIZON)


def test_the_policy_does_not_see_the_goal():
    policy = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    here, there = (Walk(policy).positions(tries(goal)) for goal in ([0.4, 0.1], [-0.2, 0.3]))
    assert torch.equal(here, there)
    assert not torch.equal(Walk(policy)(tries([0.4, 0.1])), Walk(policy)(tries([-0.2, 0.3])))


def test_the_return_has_the_derivatives_of_finite_differences():
    policy = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    walk, x = Walk(policy), stream_of().batch(0, 1).support.x[0]
    names = [name for name, _ in walk.named_parameters()]

    def lost(*weights):
        return torch.func.functional_call(walk, dict(zip(names, weights)), (x,)).sum()

    weights = tuple(p.detach().clone().requires_grad_() for p in policy.parameters())
    assert torch.autograd.gradcheck(lost, weights)
    assert torch.autograd.gradgradcheck(lost, weights)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_network_becomes_a_policy_that_runs_for_all_tasks_at_once(activation):
    config = config_of(backbone_options={"hidden": 5, "activation": activation})
    assert way_of(config, GOALS.shape, 1, CPU).name == OWN
    network = backbone_of(config_of()).build(GOALS.shape, 1)
    assert [p.shape for p in network.parameters()][0::4] == [(5, 2), (2, 5)]


def test_one_step_of_adaptation_is_a_step_along_the_gradient_of_the_tries():
    """The inner loop over stacked weights, against the module itself and torch's own gradient, task by task."""
    config, stream = config_of(), stream_of()
    algorithm = create_algorithm("maml", inner_lr=0.7, inner_steps=1)
    task_loss, slow = build(config, algorithm, GOALS, CPU)
    task_loss.network.double()
    slow = {name: w.double() for name, w in slow.items()}
    tasks = stream.batch(0, 4)
    fast = algorithm.adapt(task_loss, slow, tasks.support)
    for t in range(4):
        task_loss.network.load_state_dict(slow)
        loss = task_loss.network(tasks.support.x[t]).mean()
        grads = torch.autograd.grad(loss, list(task_loss.network.parameters()))
        for (name, w), g in zip(slow.items(), grads):
            torch.testing.assert_close(fast[name][t], w - 0.7 * g)


@pytest.mark.parametrize(
    ("episode", "words"),
    [
        (Episode(5, 1, 1), "n_way 5: navigation has one goal in a task; accepted: 1"),
        (Episode(1, 900, 101), "k_shot 900 \\+ k_query 101 tries of navigation; accepted: a sum of at most 1000"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_in_words(episode, words):
    with pytest.raises(BenchError, match=words):
        stream_of(episode=episode)


@pytest.mark.parametrize("horizon", [0, 1001])
def test_a_horizon_that_makes_no_try_is_refused_in_words(horizon):
    with pytest.raises(BenchError, match=f"horizon {horizon}; accepted: 1 to 1000"):
        create_dataset("navigation", horizon=horizon)
