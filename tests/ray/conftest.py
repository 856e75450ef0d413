"""One small Ray cluster for all tests here: starting one takes longer than most of them."""

import pytest
import ray


@pytest.fixture(scope="session")
def ray_cluster():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
