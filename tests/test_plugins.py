"""Plugins that cannot be used: one message with the place, and the nearest name."""

import pytest

from metacl.errors import ConfigError
from metacl.plugins import import_plugins, packable


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return tmp_path


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("def f(:\n", ["broken_plugin.py, line 1: invalid syntax"]),
        ("x = 1\ny = z\n", ["broken_plugin.py, line 2: NameError: name 'z' is not defined"]),
        ("import no_such_library\n", ["broken_plugin.py, line 1: ModuleNotFoundError: No module named 'no_such_lib"]),
        (
            "from metacl.objectives import OBJECTIVES, MAML\n@OBJECTIVES.register('anil')\nclass A(MAML): ...\n",
            ["meta-objective 'anil' is registered twice: by metacl.objectives.anil.ANIL and by broken_plugin.A"],
        ),
    ],
)
def test_broken(folder, source, parts):
    (folder / "broken_plugin.py").write_text(source)
    with pytest.raises(ConfigError) as caught:
        import_plugins(["broken_plugin"])
    assert str(caught.value).startswith("plugins: ")
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


def test_misspelt_names_the_nearest_file_here(folder):
    (folder / "my_losses.py").write_text("")
    with pytest.raises(ConfigError, match=r"'my_loses' cannot be imported: there is no .* Did you mean 'my_losses'"):
        import_plugins(["my_loses"])


def test_what_is_no_list_is_left_to_the_config():
    assert import_plugins("x") == "x"


def test_what_is_not_installed_is_packed(folder):
    (folder / "one_file.py").write_text("")
    (folder / "a_package").mkdir()
    (folder / "a_package" / "part.py").write_text("")
    (folder / "a_package" / "__init__.py").write_text("")
    import_plugins(["one_file", "a_package.part", "yaml"])
    packed = packable(["one_file", "a_package.part", "yaml"])
    assert packed == [str(folder / "one_file.py"), str(folder / "a_package")], "yaml is installed"
