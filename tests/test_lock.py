"""`pylock.toml` pins what developers install: all that pyproject.toml asks for, by hash."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REMEDY = (
    "lock again: uv pip compile pyproject.toml --extra test --extra docs --extra notebooks "
    "--universal --python-version 3.11 --generate-hashes --format pylock.toml -o pylock.toml"
)


def test_the_lock_holds_every_dependency_with_hashes_from_pypi():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(r for e in ("lab", "test", "docs", "notebooks") for r in extras[e]),
    ]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in asked} - {
        project["name"]
    }
    packages = tomllib.loads((ROOT / "pylock.toml").read_text())["packages"]
    assert names <= {package["name"] for package in packages}, REMEDY
    for package in packages:
        for file in [
            *package.get("wheels", []),
            *([package["sdist"]] if "sdist" in package else []),
        ]:
            assert file["url"].startswith("https://files.pythonhosted.org/"), package["name"]
            assert len(file["hashes"]["sha256"]) == 64
