"""Worker groups must round alike: one that cannot compile where the others do is refused, if anything is compiled."""

from types import SimpleNamespace

import pytest

from metacl.config import Workers
from metacl.coordination import ray_fleet
from metacl.errors import ResourceError


@pytest.fixture
def fleet_of(monkeypatch):
    monkeypatch.setattr(ray_fleet.ray, "get", lambda reference: None)

    def made(compiles, compile):
        config = SimpleNamespace(workers=Workers(groups=3), compiles=compile)
        fleet = ray_fleet.Fleet(config, lambda note: None, kind=None)
        for number, compiler in enumerate(compiles):
            group = SimpleNamespace(pending=[number], compiles=compiler, advance=lambda: "ready", doing="")
            fleet._coming[number] = group
        return fleet

    return made


@pytest.mark.parametrize("compiles", [[True, True, True], [False, False, False]])
def test_alike(fleet_of, compiles):
    fleet = fleet_of(compiles, compile=True)
    fleet.advance([0, 1, 2])
    assert set(fleet.ready) == {0, 1, 2}


@pytest.mark.parametrize(("compiles", "part"), [([True, True, False], "has no C++"), ([False, True], "has a C++")])
def test_not_alike(fleet_of, compiles, part):
    fleet = fleet_of(compiles, compile=True)
    with pytest.raises(ResourceError, match=rf"group {len(compiles) - 1} {part}".replace("+", r"\+")):
        fleet.advance(range(len(compiles)))


def test_it_matters_only_where_something_is_compiled(fleet_of):
    fleet = fleet_of([True, False], compile=False)
    fleet.advance([0, 1])
    assert set(fleet.ready) == {0, 1}
