"""One small Ray cluster, and one pair of ranks, for all tests here: starting them takes longer than most tests."""

import pytest
import ray

from metacl.config import Workers
from metacl.coordination.ray_group import _environment
from tests.ray.ranks import Rank, Ranks


@pytest.fixture(scope="session")
def ray_cluster():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def pair(ray_cluster):
    """Two ranks that form a process group over gloo and compute what they are sent."""
    hidden = {"env_vars": _environment(Workers(zero_stage=3))}
    actors = [ray.remote(Rank).options(num_cpus=0, runtime_env=hidden).remote(rank, 2) for rank in range(2)]
    place = ray.get(actors[0].place.remote())
    ray.get([actor.join.remote(place) for actor in actors])
    yield Ranks(actors)
    for actor in actors:
        ray.kill(actor)
