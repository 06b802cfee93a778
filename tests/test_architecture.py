"""The house: a module imports only from floors below its own."""

import ast
from pathlib import Path

import pytest

import fastkernel

ROOT = Path(fastkernel.__file__).parent

FLOORS = [
    {"errors", "_typing", "_loops"},
    {"_borders", "_convolve_cost", "_cost", "_fft", "_tiles", "_windows", "plotting", "solvers"},
    {"_lazy", "constraints", "convolve_engines", "engines", "penalties", "transforms"},
    {"_checks", "_frames", "sweeps"},
    {
        *("_restore_checks", "convolution", "gather", "matrix", "options", "psf", "shift"),
        "unknown_boundary",
    },
    {"background", "descents", "fit", "operators", "restore", "richardson", "separable", "tiled"},
    {"inverse_methods", "large", "multiplicative", "solving", "spectral"},
    {"inverse", "normal"},
    {"robust"},
    {"estimate"},
    {"cli"},
]


def imported(path):
    """The fastkernel modules that a file imports, also inside functions; types apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path):
    names = (name.split(".") for name in imported(path) if name.startswith("fastkernel."))
    return {parts[1] for parts in names}


def floor_of(room):
    return next(i for i, floor in enumerate(FLOORS) if room in floor)


MODULES = sorted(
    path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    known = set().union(*FLOORS)
    assert room in known
    for other in rooms(path) & known - {room}:
        assert floor_of(other) < floor_of(room), other


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_compilers_threads_and_plans_have_one_home(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    homes = {
        "numba": {"_loops"},
        "llvmlite": {"_loops"},
        "pyfftw": {"_fft"},
        "threading": {"_tiles", "_fft"},
        "concurrent": {"_tiles"},
    }
    for name in imported(path):
        allowed = homes.get(name.split(".")[0])
        assert allowed is None or room in allowed or room == "cli", name


@pytest.mark.parametrize("path", sorted((ROOT / "_loops").glob("[!_]*.py")), ids=lambda p: p.stem)
def test_every_loop_has_its_flags_beside_it_and_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loops = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator) == "_loop" for decorator in node.decorator_list)
    ]
    assert loops
    assert any(isinstance(node, ast.Assign) and node.targets[0].id == "_loop" for node in tree.body)
    for node in loops:
        docstring = ast.get_docstring(node) or ""
        assert "Parameters\n" in docstring, node.name
        assert "Cost: " in docstring, node.name
    assert "prange" not in path.read_text(encoding="utf-8")


def test_no_module_hides_a_public_function():
    """Importing a module binds its name in the package, over a function of the same name."""
    assert not set(fastkernel.__all__) & {path.stem for path in ROOT.glob("*.py")}
