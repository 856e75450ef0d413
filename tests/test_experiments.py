"""What experiments and configs take from metacl is there: they are run by hand, and rarely."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for folder in ("experiments", "configs", "ray_jobs")
    for path in (ROOT / folder).rglob("*.py")
    if ".venv" not in str(path.relative_to(ROOT))
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_from_metacl_is_there(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "metacl":
            module = importlib.import_module(node.module)
            missing = [
                name.name
                for name in node.names
                if not hasattr(module, name.name)
                and not (hasattr(module, "__path__") and importlib.util.find_spec(f"{node.module}.{name.name}"))
            ]
            assert not missing, f"line {node.lineno}: {node.module} has no {', '.join(missing)}"
