"""The registry: building by name, and errors that name the nearest known thing."""

from abc import abstractmethod
from pathlib import Path

import pytest
from pydantic import ValidationError

from metacl.errors import ConfigError
from metacl.registry import Component, Registry, nearest


class Shape(Component):
    """What shapes have in common."""


class Inner(Component):
    size: int = 1


def shapes() -> Registry[Shape]:
    registry: Registry[Shape] = Registry("shape", "drawing.shape")

    @registry.register("circle")
    class Circle(Shape):
        """A round one.

        More about it.
        """

        radius: float = 1.0
        inner: Inner = Inner()
        files: tuple[Path, ...] = ()

    @registry.register("square")
    class Square(Shape):
        side: float

    return registry


def test_build_by_name():
    circle = shapes().build({"name": "circle", "radius": 2, "inner": {"size": 3}})
    assert (circle.radius, circle.inner.size) == (2.0, 3)
    assert shapes().names() == ["circle", "square"]
    assert shapes().summary("circle") == "A round one."


def test_a_class_that_leaves_out_what_its_kind_must_have_is_refused_at_once():
    class Drawn(Component):
        @abstractmethod
        def area(self) -> float: ...

    registry: Registry[Drawn] = Registry("shape", "drawing.shape")
    with pytest.raises(ConfigError, match=r"shape 'line': .*Line does not define area; every shape does"):

        @registry.register("line")
        class Line(Drawn):
            pass

    assert registry.names() == []


def test_building_leaves_the_options_alone():
    options = {"name": "circle"}
    shapes().build(options)
    assert options == {"name": "circle"}


def test_plain_values_hold_the_name_and_build_an_equal_one():
    registry = shapes()
    circle = registry.build({"name": "circle", "radius": 2.5, "files": ["a/b", "c"]})
    plain = circle.to_dict()
    assert plain == {"name": "circle", "radius": 2.5, "inner": {"size": 1}, "files": ["a/b", "c"]}
    assert registry.build(plain) == circle


def test_components_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        shapes().build({"name": "circle"}).radius = 3.0


def test_duplicate_name_names_both():
    registry = shapes()
    with pytest.raises(ConfigError, match=r"'circle' is registered twice: by .*Circle and by .*Other"):

        @registry.register("circle")
        class Other(Shape):
            pass

    assert registry.get("circle").__name__ == "Circle"


def test_unknown_name_names_the_nearest_and_the_key():
    with pytest.raises(ConfigError, match=r"drawing\.shape\.name: unknown shape 'circel'. Did you mean 'circle'\?"):
        shapes().build({"name": "circel"})


def test_unknown_name_far_from_all_lists_all():
    with pytest.raises(ConfigError, match=r"Known: circle, square\."):
        shapes().build({"name": "zzz"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "circle", "radios": 1}, "drawing.shape.radios: unknown key. Did you mean 'radius'?"),
        ({"name": "circle", "inner": {"sise": 1}}, "drawing.shape.inner.sise: unknown key. Did you mean 'size'?"),
        ({"name": "square"}, "drawing.shape.side: missing; it has no default."),
        (
            {"name": "circle", "radius": "big"},
            "drawing.shape.radius: Input should be a valid number, unable to parse string as a number (got 'big').",
        ),
    ],
)
def test_bad_option(options, message):
    with pytest.raises(ConfigError) as caught:
        shapes().build(options)
    assert str(caught.value) == message


def test_every_bad_option_gets_a_line():
    with pytest.raises(ConfigError) as caught:
        shapes().build({"name": "circle", "radius": "big", "colour": "red"})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("options", [{"name": ["circle"]}, {"name": "circle", 1: 2}])
def test_options_that_yaml_can_hold_but_no_component_has(options):
    with pytest.raises(ConfigError, match=r"drawing\.shape"):
        shapes().build(options)


def test_nearest():
    assert nearest("stps", ["steps", "seed"]) == "Did you mean 'steps'?"
    assert nearest("qqq", ["steps", "seed"]) == "Known: seed, steps."
