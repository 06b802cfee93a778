"""What is said of the package in several places is the same in all of them."""

import re
import tomllib
from pathlib import Path

import pytest

import fastkernel

ROOT = Path(__file__).resolve().parents[2]
if not (ROOT / ".github").exists():
    pytest.skip("only a checkout has all the places", allow_module_level=True)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RECIPE = (ROOT / ".github" / "conda" / "meta.yaml").read_text(encoding="utf-8")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_there_is_one_version():
    version = PROJECT["version"]
    assert fastkernel.__version__ == version
    assert re.search(rf"^version: {re.escape(version)}$", read("CITATION.cff"), re.MULTILINE)
    assert f'{{% set version = "{version}" %}}' in RECIPE
    (dated,) = re.findall(
        rf"^## \[{re.escape(version)}\] - (.*)$", read("CHANGELOG.md"), re.MULTILINE
    )
    assert f"date-released: {dated}\n" in read("CITATION.cff")


def test_the_recipe_asks_for_what_the_package_asks_for():
    wanted = {*PROJECT["dependencies"]}
    for extra in ("cli", "plot"):
        wanted |= {*PROJECT["optional-dependencies"][extra]}
    needs = RECIPE.partition("  run:\n")[2].partition("\ntest:")[0]
    found = dict(re.findall(r"^    - ([\w-]+) (.*)$", needs, re.MULTILINE))
    assert found.pop("python") == PROJECT["requires-python"]
    found["matplotlib"] = found.pop("matplotlib-base")
    # What the command is made of in `wanted` may be more than the recipe has, never older.
    assert {f"{name}{limit}" for name, limit in found.items()} <= wanted
    assert {*PROJECT["dependencies"]} <= {f"{name}{limit}" for name, limit in found.items()}


def test_actions_are_pinned_to_commits():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for action in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), f"{path.name}: {action}"
