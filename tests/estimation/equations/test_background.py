"""A background fitted with the kernel: the dense least squares with extra columns."""

import naive
import numpy as np
import pytest
from calls import equations_of, pairs_of
from numpy.polynomial.legendre import leggrid2d
from numpy.testing import assert_allclose, assert_array_equal
from shared import Slices
from skimage import data

from fastkernel import NormalEquations, SingularFitError, normal_equations
from fastkernel._images import blocks
from fastkernel._machine.run import Run
from fastkernel.estimation.equations import background as bg
from fastkernel.estimation.equations import polynomial_sums
from fastkernel.estimation.equations.formed import gathered
from fastkernel.estimation.equations.polynomial_sums import background_sums
from fastkernel.estimation.equations.residual import residual_moments_beside

SHAPES = [(1, 1), (1, 6), (3, 4), (5, 2), (9, 8)]


def pair_of(source, result, shape, boundary=None):
    return pairs_of(source, result, shape, boundary)[0]


def basis(window_shape, degree):
    """One row a pixel, one column a term: products of Legendre polynomials."""
    columns = []
    rows, cols = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in window_shape)
    for i in range(degree + 1):
        for j in range(degree + 1 - i):
            term = np.zeros((degree + 1, degree + 1))
            term[i, j] = 1
            columns.append(leggrid2d(rows, cols, term).ravel())
    return np.array(columns).T


def terms(matrix):
    n = len(matrix)
    return np.array([matrix[i, j] for i in range(n) for j in range(n - i)])


@pytest.fixture
def many_jobs(small_tiles, monkeypatch):
    monkeypatch.setattr(polynomial_sums, "THREADED_PIXELS", 0)


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(13, 14), (21, 30)])
def test_sums_are_those_of_the_columns(size, shape, degree, rng):
    image = rng.random(size) + 2
    result = rng.random([n - k + 1 for n, k in zip(size, shape, strict=True)])
    x, phi = naive.design_matrix(image, shape), basis(result.shape, degree)
    got = background_sums(pair_of(image, result, shape), shape, degree)
    assert_allclose(got.products, x.T @ phi, rtol=0, atol=1e-13 * image.sum())
    assert_allclose(got.gram, phi.T @ phi, rtol=0, atol=1e-13 * result.size)
    assert_allclose(got.moments, result.ravel() @ phi, rtol=0, atol=1e-13 * result.size)
    assert got.terms == phi.shape[1]


@pytest.mark.parametrize("size", [(9, 8), (10, 9), (12, 15)])
def test_a_kernel_larger_than_the_window(size, rng):
    shape, image = (9, 8), rng.random(size)
    result = rng.random((size[0] - 8, size[1] - 7))
    x, phi = naive.design_matrix(image, shape), basis(result.shape, 0)
    got = background_sums(pair_of(image, result, shape), shape, 0)
    assert_allclose(got.products, x.T @ phi, rtol=1e-13)


@pytest.mark.parametrize("shape", [(3, 3), (4, 6)])
@pytest.mark.parametrize(
    ("mode", "boundary"), [("full", None), ("same", None), *(("same", b) for b in naive.PAD_MODES)]
)
def test_every_mode_and_border(mode, boundary, shape, rng):
    image = rng.random((12, 14))
    virtual = naive.extended(
        image, shape, mode if boundary or mode == "full" else "valid", boundary
    )
    result = rng.random(naive.convolve(image, np.ones(shape), mode).shape)
    used = result if mode == "full" or boundary else naive.inside(result, shape)
    x, phi = naive.design_matrix(virtual, shape), basis(used.shape, 2)
    got = background_sums(pair_of(image, result, shape, boundary), shape, 2)
    assert_allclose(got.products, x.T @ phi, rtol=0, atol=1e-12)
    assert_allclose(got.moments, used.ravel() @ phi, rtol=0, atol=1e-12)


def test_a_constants_sums_of_integers_are_exact():
    image = data.camera()[:40, :50]
    result = data.camera()[100:138, 100:148]
    got = background_sums(pair_of(image, result, (3, 3)), (3, 3), 0)
    want = naive.design_matrix(image.astype(int), (3, 3)).sum(axis=0)
    assert_array_equal(got.products[:, 0], want)
    assert got.moments[0] == int(result.sum())


@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bits_for_any_workers(workers, many_jobs, rng):
    image, result, shape = rng.random((23, 31)), rng.random((20, 28)), (4, 4)
    pair = pair_of(image, result, shape)
    one, more = (background_sums(pair, shape, 3, n) for n in (1, workers))
    assert_array_equal(one.products, more.products)
    assert_array_equal(one.moments, more.moments)
    x, phi = naive.design_matrix(image, shape), basis(result.shape, 3)
    assert_allclose(one.products, x.T @ phi, rtol=0, atol=1e-11)


@pytest.mark.parametrize("background", ["constant", 0, 1, 2, 4])
@pytest.mark.parametrize("shape", [(3, 3), (2, 5)])
def test_the_fit_is_that_of_extra_columns(background, shape, rng):
    degree = 0 if background == "constant" else background
    image = data.camera()[:36, 90:130].astype(float)
    result = rng.normal(50, 20, (36 - shape[0] + 1, 40 - shape[1] + 1))
    x, phi = naive.design_matrix(image, shape), basis(result.shape, degree)
    want, *_ = np.linalg.lstsq(np.hstack([x, phi]), result.ravel(), rcond=None)
    kernel, polynomial = np.split(want, [x.shape[1]])
    equations = normal_equations(image, result, shape, background=background)
    fit = equations.solve()
    scale = np.abs(kernel).max()
    assert_allclose(fit.kernel.ravel(), kernel, rtol=0, atol=1e-9 * scale)
    left = result.ravel() - x @ kernel - phi @ polynomial
    assert fit.residual_rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-9)
    assert equations.background_terms == phi.shape[1]
    sums = background_sums(pair_of(image, result, shape), shape, degree)
    found = bg.background_of(sums, fit.kernel)
    if degree == 0:
        assert isinstance(found, float)
        assert found == pytest.approx(polynomial[0], rel=1e-9)
    else:
        assert found.shape == (degree + 1, degree + 1)
        size = np.abs(polynomial).max()
        assert_allclose(terms(found), polynomial, rtol=0, atol=1e-9 * size)
    smooth = bg.background_image(found, result.shape)
    assert_allclose(smooth.ravel(), phi @ polynomial, rtol=0, atol=1e-7)


def two_pairs(rng):
    images = [rng.random(size) + 1 for size in ((14, 15), (9, 21))]
    results = [rng.random((m - 2, n - 3)) for m, n in (image.shape for image in images)]
    return images, results


def test_every_pair_has_a_background_of_its_own(rng):
    images, results = two_pairs(rng)
    blocks = [naive.design_matrix(image, (3, 4)) for image in images]
    phis = [basis(result.shape, 1) for result in results]
    x = np.zeros((sum(map(len, blocks)), 18))
    x[:, :12] = np.vstack(blocks)
    x[: len(blocks[0]), 12:15], x[len(blocks[0]) :, 15:] = phis
    y = np.concatenate([result.ravel() for result in results])
    want = np.linalg.lstsq(x, y, rcond=None)[0][:12].reshape(3, 4)
    together = normal_equations(images, results, (3, 4), background=1)
    assert together.background_terms == 6
    assert_allclose(together.solve().kernel, want, rtol=0, atol=1e-12)
    first, second = (
        normal_equations(image, result, (3, 4), background=1)
        for image, result in zip(images, results, strict=True)
    )
    added = first + second
    assert added.background_terms == 6
    assert added.background_energy == pytest.approx(together.background_energy)
    assert_allclose(added.gram, together.gram, rtol=0, atol=1e-11)
    assert_allclose(added.solve().kernel, want, rtol=0, atol=1e-12)


def test_channels_have_their_own_constant(rng):
    image = rng.random((20, 22, 3))
    kernel = np.array([[0.2, 0.5], [0.1, 0.2]])
    result = np.stack([naive.convolve(image[..., i], kernel) + 10.0**i for i in range(3)], axis=-1)
    found = normal_equations(image, result, (2, 2), channel_axis=-1, background="constant")
    assert_allclose(found.solve().kernel, kernel, atol=1e-10)


def test_equations_crop_and_keep(tmp_path, rng):
    image, result = rng.random((14, 17)), rng.random((14, 17))
    found = normal_equations(image, result, (5, 5), background=2)
    assert found.crop((3, 3)).background_terms == 6
    assert found.crop((3, 3)).background_energy == found.background_energy
    found.save(tmp_path / "equations.npz")
    again = NormalEquations.load(tmp_path / "equations.npz")
    assert (again.background_terms, again.background_energy) == (6, found.background_energy)
    # The cropped kernel's own fit over the same pixels.
    x = naive.design_matrix(image, (5, 5)).reshape(-1, 5, 5)[:, 1:4, 1:4].reshape(-1, 9)
    y, phi = naive.inside(result, (5, 5)), basis((10, 13), 2)
    want = np.linalg.lstsq(np.hstack([x, phi]), y.ravel(), rcond=None)[0][:9]
    assert_allclose(found.crop((3, 3)).solve().kernel.ravel(), want, atol=1e-12)


def test_files_without_a_background_still_load(tmp_path, rng):
    found = normal_equations(rng.random((9, 9)), rng.random((7, 7)), 3)
    names = ("gram", "moments", "energy", "n_pixels", "kernel_shape")
    np.savez(tmp_path / "old.npz", **{name: getattr(found, name) for name in names})
    again = NormalEquations.load(tmp_path / "old.npz")
    assert (again.background_terms, again.background_energy) == (0, 0.0)
    assert_array_equal(again.gram, found.gram)


@pytest.mark.parametrize("background", [0, 1, 2])
def test_a_source_that_is_a_background_determines_nothing(background):
    rows, cols = np.mgrid[:20, :24]
    image = 3.7 + (0.31 * rows + 0.17 * cols) * (background > 0) + 0.01 * rows**2 * (background > 1)
    result = np.random.default_rng(0).random((18, 22))
    with pytest.raises(SingularFitError):
        normal_equations(image, result, 3, background=background).solve()


def test_a_bright_result_hides_as_much_as_before(rng):
    image, result = rng.random((30, 30)), rng.random((28, 28)) + 1e3
    with_it = normal_equations(image, result, 3, background="constant")
    without = normal_equations(image, result, 3)
    assert with_it.energy < 1e-4 * without.energy
    assert with_it.hidden_energy == pytest.approx(without.hidden_energy)


def test_the_residual_of_kernel_and_background(many_jobs, rng):
    images, results = two_pairs(rng)
    pairs = [pair_of(x, y, (3, 4)) for x, y in zip(images, results, strict=True)]
    sums = [background_sums(pair, (3, 4), 2) for pair in pairs]
    kernel = rng.standard_normal((3, 4))
    start = [rng.standard_normal(6), rng.standard_normal(6)]
    got = {
        workers: residual_moments_beside(
            pairs, kernel[::-1, ::-1].copy(), sums, start, Run(workers)
        )
        for workers in (1, 2)
    }
    moments, energy, coefficients = got[1]
    assert_array_equal(moments, got[2][0])
    assert energy == got[2][1]
    right, left = np.zeros(12), 0.0
    for image, result, found in zip(images, results, coefficients, strict=True):
        x, phi = naive.design_matrix(image, (3, 4)), basis(result.shape, 2)
        unexplained = result.ravel() - x @ kernel.ravel()
        best = np.linalg.lstsq(phi, unexplained, rcond=None)[0]
        assert_allclose(found, best, atol=1e-12)
        right += x.T @ (unexplained - phi @ best)
        left += np.sum((unexplained - phi @ best) ** 2)
    assert_allclose(moments[::-1], right, rtol=0, atol=1e-10)
    assert energy == pytest.approx(left, rel=1e-12)


def test_the_pixels_correct_what_rounding_left():
    image = data.camera()[:60, 90:150].astype(float)
    image = sum(np.roll(image, i, axis=1) for i in range(5))  # hardly any fine detail
    kernel = np.outer([0.1, 0.5, 0.4], [0.2, 0.5, 0.3])
    phi = bg.background_image(np.array([[1e3, 30.0], [-20.0, 0.0]]), (58, 58))
    pairs = [pair_of(image, naive.convolve(image, kernel) + phi, (3, 3))]
    sums = [background_sums(pairs[0], (3, 3), 1)]
    equations = equations_of(pairs, (3, 3), 1, None, "float", 1)
    fit = equations.solve()
    found = fit.kernel
    coefficients = [bg.coefficients_of(sums[0], found)]
    for _ in range(2):
        taps = found[::-1, ::-1].copy()
        moments, _, coefficients = residual_moments_beside(pairs, taps, sums, coefficients, Run())
        found = found + fit._factor.solve(moments[::-1]).reshape(3, 3)
    first, last = (np.abs(k - kernel).max() for k in (fit.kernel, found))
    assert last < 1e-12
    assert last < first / 10


@pytest.mark.parametrize("boundary", [None, "mirror"])
def test_images_that_are_read_by_slices(boundary, monkeypatch, rng):
    monkeypatch.setattr(blocks, "BLOCK_SHAPE", (7, 9))
    image, result = (rng.integers(0, 256, (20, 25), dtype=np.uint8) for _ in range(2))
    whole = background_sums(pair_of(image, result, (3, 5), boundary), (3, 5), 2)
    lazy = pair_of(Slices(image), Slices(result), (3, 5), boundary)
    (got,) = gathered([lazy], (3, 5), 2, Run()).backgrounds
    assert_allclose(got.products, whole.products, rtol=0, atol=1e-8)
    assert_allclose(got.moments, whole.moments, rtol=0, atol=1e-8)


@pytest.mark.parametrize("background", [-1, 5, 1.0, True, "linear", [1]])
def test_refuses_what_is_no_background(background):
    with pytest.raises(ValueError, match="background must be None, 'constant' or a polynomial"):
        normal_equations(np.ones((9, 9)), np.ones((7, 7)), 3, background=background)


def test_refuses_a_degree_that_the_pixels_do_not_tell():
    with pytest.raises(ValueError, match=r"background of degree 3 needs at least 4 rows.*lower"):
        normal_equations(np.ones((5, 20)), np.ones((3, 18)), 3, background=3)


@pytest.mark.parametrize("name", ["source", "result"])
def test_refuses_pixels_that_are_not_finite(name, rng):
    images = {"source": rng.random((20, 20)), "result": rng.random((18, 18))}
    images[name][4, 5] = np.nan
    pair = pair_of(images["source"], images["result"], (3, 3))
    with pytest.raises(ValueError, match=rf"{name} must be finite, got nan at index \(4, 5\)"):
        background_sums(pair, (3, 3), 1)
