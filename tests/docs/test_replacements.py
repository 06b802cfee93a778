"""The table "I replace this line" in README: both lines of a row are run, and compared."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from numpy.fft import fftshift, irfft2, rfft2
from numpy.lib.stride_tricks import sliding_window_view

import fastkernel

README = Path(__file__).resolve().parents[2] / "README.md"
if not README.exists():
    pytest.skip("an installed package has no README beside it", allow_module_level=True)
TABLE = README.read_text(encoding="utf-8").partition("## I replace this line")[2]
ROWS = re.findall(
    r"^\| `(.*?)`.*? \| `(.*?)` \| (.*?) \|$", TABLE.partition("\n## ")[0], re.MULTILINE
)
SHAPE, TAPS = (40, 50), (5, 7)


def lines(start):
    """Today's line and ours, of the row that starts so."""
    ((old, new),) = [(old, new) for old, new, _ in ROWS if old.startswith(start)]
    return old, new


@pytest.fixture
def names(rng):
    """What the lines of the table take as given: an image, a kernel, and the result."""
    cv2, skimage = (pytest.importorskip(name) for name in ("cv2", "skimage"))
    pytest.importorskip("skimage.restoration")
    x, k = rng.random(SHAPE), rng.random(TAPS)
    k /= k.sum()
    y = scipy.signal.convolve2d(x, k, "same")
    there = {"np": np, "scipy": scipy, "cv2": cv2, "skimage": skimage, "rfft2": rfft2}
    there |= {"irfft2": irfft2, "fftshift": fftshift, "m": SHAPE[0], "n": SHAPE[1]}
    there |= {name: getattr(fastkernel, name) for name in fastkernel.__all__}
    return there | {"x": x, "k": k, "y": y}


SAME = ["convolve2d", "fftconvolve", "correlate2d", "ndimage", "cv2", "skimage.restoration.wiener"]


def prefixed(name):
    return {"ndimage": "scipy.ndimage.", "cv2": "cv2."}.get(
        name, name if "." in name else f"scipy.signal.{name}"
    )


def test_every_row_is_tested():
    assert len(ROWS) == len(SAME) + 5


@pytest.mark.parametrize("name", SAME)
def test_the_new_line_gives_what_the_old_one_gave(name, names):
    old, new = lines(prefixed(name))
    np.testing.assert_allclose(eval(new, names), eval(old, names), atol=1e-13)


@pytest.mark.parametrize("name", ["ndimage", "cv2"])
def test_even_sides_take_a_row_and_a_column_of_zeros(name, names, rng):
    old, new = lines(prefixed(name))
    even = rng.random((4, 6))
    padded = eval("np.pad(k, (0, 1))", names | {"k": even})
    assert "`np.pad(k, (0, 1))`" in TABLE
    ours = eval(new, names | {"k": padded})
    np.testing.assert_allclose(ours, eval(old, names | {"k": even}), atol=1e-13)
    assert np.abs(eval(new, names | {"k": even}) - ours).max() > 0.1


def test_the_recipe_is_falsified_by_the_border_and_the_fit_is_not(names):
    old, new = lines("fftshift")
    k = names["k"]
    np.testing.assert_allclose(eval(new, names), k, atol=1e-12)
    middle = np.s_[SHAPE[0] // 2 - 2 : SHAPE[0] // 2 + 3, SHAPE[1] // 2 - 3 : SHAPE[1] // 2 + 4]
    recipe = eval(old, names)[middle]
    assert np.abs(recipe - k).max() > 0.1 * k.max()
    wrapped = scipy.signal.convolve2d(names["x"], k, "same", "wrap")
    np.testing.assert_allclose(eval(old, names | {"y": wrapped})[middle], k, atol=1e-9)


def test_the_fit_is_the_least_squares_of_the_windows(names):
    _, new = lines("lstsq")
    x, y, k = (names[name] for name in "xyk")
    windows = sliding_window_view(x, TAPS).reshape(-1, k.size)[:, ::-1]
    np.testing.assert_array_equal(windows, fastkernel.design_matrix(x, TAPS))
    noisy = y + 0.01 * names["x"] ** 2
    inside = noisy[2:-2, 3:-3].ravel()
    found = np.linalg.lstsq(windows, inside)[0].reshape(TAPS)
    np.testing.assert_allclose(eval(new, names | {"y": noisy}), found, atol=1e-12)


def test_richardson_lucy_is_nearer_to_the_scene(names, rng):
    old, new = lines("skimage.restoration.richardson_lucy")
    scene = np.kron(rng.random((8, 9)), np.ones((8, 8)))
    k = fastkernel.psf.gaussian(7, 1.2)
    blurred = scipy.ndimage.convolve(scene, k) + 0.01 * rng.standard_normal(scene.shape)
    given = names | {"x": blurred.clip(0), "k": k}
    errors = [np.sqrt(np.mean((eval(line, given) - scene) ** 2)) for line in (new, old)]
    assert errors[0] < 0.9 * errors[1]


def test_matching_kernels_of_two_psfs(names):
    _, new = lines("photutils")
    sharp = fastkernel.psf.gaussian((31, 31), 1.5)
    broad = scipy.signal.convolve2d(sharp, names["k"], "same")
    found = eval(new, names | {"a": sharp, "b": broad})
    np.testing.assert_allclose(found, names["k"], atol=1e-6)


def test_the_convolution_matrix_is_that_of_matlab_with_pixels_in_rows(names):
    _, new = lines("convmtx2")
    x, k = names["x"], names["k"]
    np.testing.assert_allclose(
        eval(new, names) @ x.ravel(), scipy.signal.convolve2d(k, x).ravel(), atol=1e-13
    )
