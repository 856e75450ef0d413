"""The walls of the house: who imports whom, read from the source, imports inside functions included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "metacl"

ORDER = [
    "errors",
    "registry",
    "plugins",
    "tasks",
    "learners",
    "adaptation",
    "metagradients",
    "objectives",
    "testing",
    "aggregation",
    "presets",
    "config",
    "initialization",
    "coordination",
    "evaluation",
    "continual",
    "reporting",
    "api",
    "plan",
    "doctor",
    "data_check",
    "scaffold",
    "cli",
]
"""Every top-level part imports only itself and those before it."""

FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Dotted names of all modules (or names in modules) that a file imports, wherever in it the import stands."""
    package = list(path.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in ("import_module", "__import__") and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def importers_of(library: str, folder: Path = PACKAGE) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in folder.rglob("*.py")
        if any(module.split(".")[0] == library for module in imported_modules(path))
    }


def test_every_part_has_its_place():
    parts = {part_of(path) for path in FILES if part_of(path) != "__init__"}
    assert parts - set(ORDER) == set(), "a new part of metacl needs a place in ORDER (and in DESIGN.md)"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_what_lies_below(path):
    if path == PACKAGE / "__init__.py":
        return  # the public names, loaded when they are used
    allowed = {*ORDER[: ORDER.index(part_of(path)) + 1], "__version__"}
    for module in sorted(imported_modules(path)):
        names = module.split(".")
        if names[0] == "metacl" and names[1:]:
            assert names[1] in allowed, f"{path.relative_to(ROOT)} imports {module}, which lies above it"


def test_ray_stands_only_where_ray_is_meant():
    stray = {
        name
        for name in importers_of("ray")
        if not (Path(name).parent == Path("metacl/coordination") and Path(name).name.startswith("ray_"))
    }
    assert stray == set()


def test_the_rest_loads_the_ray_files_only_when_asked():
    # At the top of a module they would pull Ray into every process.
    for path in FILES:
        if path.name.startswith("ray_"):
            continue
        top = ast.Module([node for node in ast.parse(path.read_text("utf-8")).body if not is_definition(node)], [])
        for node in ast.walk(top):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            heavy = [name for name in names if ".ray_" in name or name.endswith("learners.sharding")]
            assert heavy == [], f"{path.relative_to(ROOT)} imports {heavy} when it is imported"


def is_definition(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def test_deepspeed_stands_only_in_sharding():
    assert importers_of("deepspeed") == {"metacl/learners/sharding.py"}


def test_nothing_imports_tests_or_experiments():
    for library in ("tests", "experiments", "ray_jobs"):
        assert importers_of(library) == set()


def test_the_instrument_sees_all_kinds_of_imports(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_layers.ROOT", tmp_path)
    path = tmp_path / "metacl" / "tasks" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def late():\n    import h as i\n    importlib.import_module('j.k')\n"
    )
    assert imported_modules(path) == {"a.b", "c.d", "metacl.tasks.e", "metacl.f.g", "h", "j.k"}
