"""A Ray cluster of three nodes on this machine, one for all tests of a file."""

import pytest


@pytest.fixture(scope="module")
def nodes():
    ray = pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    from ray_cluster import Nodes

    made = Nodes()
    yield made
    ray.shutdown()
    made.cluster.shutdown()
