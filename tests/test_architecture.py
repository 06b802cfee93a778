"""The house: a module imports only from floors below its own, and none in a circle."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

import fastkernel

ROOT = Path(fastkernel.__file__).parent

# From the ground up. A room is a folder or a file; what stands on one floor knows nothing of
# each other.
FLOORS = [
    {"_typing", "_loops"},
    {"_machine"},
    {"_images"},
    {"basis", "convolution", "psf"},
    {"estimation", "restoration"},
    {"_warm", "cli", "dask"},
]
# The floors inside the largest room.
ESTIMATION = [
    {"archive", "problem", "display", "errors", "polynomial", "quality"},
    {"solvers", "report"},
    {"shown"},
]
ESTIMATION += [{"fit"}, {"equations"}, {"methods", "inverse", "stacks", "unknowns"}]
ESTIMATION += [{"estimate", "fields"}, {"difference"}]

MOST_LINES = 500
MOST_ENTRIES = 12

# Where compilers, plans and threads have their one home.
HOMES = {
    "numba": ("_loops",),
    "llvmlite": ("_loops",),
    "pyfftw": (),  # by name, see below
    "threading": ("_machine/tiles.py", "_machine/fft.py", "_loops/_unbroken.py"),
    "concurrent": (),
    "ctypes": ("_machine/lapack.py", "_machine/tiles.py"),
    # An import by name is one that these tests do not read.
    "importlib": ("_loops/_unbroken.py", "_loops/_jit.py"),
    "fastkernel._loops._unbroken.import_whole": (
        "_images/lazy.py",
        "_machine/fft.py",
        "estimation/methods/__init__.py",
    ),
}

# The two at the top that Python asks for by name stand above the floors.
MODULES = sorted(
    path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem[:2] != "__"
)
BY_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def imported(path):
    """The modules that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # A folder that is only passed through is not imported from.
            if not all(map(is_module, names)):
                yield node.module
            yield from names


def is_module(name):
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def name_of(path):
    parts = ["fastkernel", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(room, floors):
    return next(i for i, floor in enumerate(floors) if room in floor)


@BY_MODULE
@pytest.mark.parametrize(("prefix", "floors"), [((), FLOORS), (("estimation",), ESTIMATION)])
def test_imports_point_down(path, prefix, floors):
    def room_of(name):
        parts = name.split(".")[1:]
        inside = tuple(parts[: len(prefix)]) == prefix and len(parts) > len(prefix)
        return parts[len(prefix)] if inside else None

    room, known = room_of(name_of(path)), set().union(*floors)
    if room is None:  # another part of the house
        return
    assert room in known, f"{room} has no floor"
    names = (name for name in imported(path) if name.startswith("fastkernel."))
    for other in {room_of(name) for name in names} & known - {room}:
        assert floor_of(other, floors) < floor_of(room, floors), other


def test_no_circle():
    known = {name_of(path): path for path in MODULES}
    todo = {name: set(imported(path)) & set(known) - {name} for name, path in known.items()}
    while todo:
        free = [name for name, others in todo.items() if not others & set(todo)]
        assert free, f"a circle among {sorted(todo)}"
        for name in free:
            del todo[name]


def test_the_top_can_be_taken_in_at_a_glance():
    # What Python and type checkers ask for by name is no room.
    entries = [path.name for path in ROOT.iterdir() if path.name[:2] != "__"]
    entries = [name for name in entries if name != "py.typed"]
    assert len(entries) <= MOST_ENTRIES, entries
    assert len(FLOORS) <= 6


@BY_MODULE
def test_a_module_is_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    "folder", [path for path in ROOT.rglob("*") if (path / "__init__.py").exists()], ids=str
)
def test_a_folder_says_what_lives_in_it(folder):
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert docstring
    if folder.name != "cli":
        for words in ("Comes in:", "Goes out:", "May import:"):
            assert words in " ".join(docstring.split()), words


@BY_MODULE
def test_compilers_threads_and_plans_have_one_home(path):
    place = path.relative_to(ROOT)
    for name in imported(path):
        homes = HOMES.get(name, HOMES.get(name.split(".")[0]))
        fine = homes is None or str(place) in homes or place.parts[0] in (*homes, "cli")
        assert fine, name


@pytest.mark.parametrize("path", sorted((ROOT / "_loops").glob("[!_]*.py")), ids=lambda p: p.stem)
def test_every_loop_has_its_flags_beside_it_and_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loops = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator) == "_loop" for decorator in node.decorator_list)
    ]
    flagged = any(
        isinstance(node, ast.Assign) and node.targets[0].id == "_loop" for node in tree.body
    )
    assert flagged == bool(loops)
    for node in loops:
        docstring = ast.get_docstring(node) or ""
        assert "Parameters\n" in docstring, node.name
        assert "Cost: " in docstring, node.name
    assert "prange" not in path.read_text(encoding="utf-8")


def test_no_module_hides_a_public_function():
    """Importing a module binds its name in the package, over a function of the same name."""
    names = set(fastkernel.__all__) & {path.stem for path in ROOT.iterdir()}
    assert all(isinstance(getattr(fastkernel, name), ModuleType) for name in names)
