import math

import numpy as np
import pytest
import varying
import weighted
from numpy.testing import assert_allclose, assert_array_equal

from fastkernel import SingularFitError, basis, estimate_kernel, estimate_kernel_field
from fastkernel._images.pairs import Pair
from fastkernel._images.windows import window_of_pair
from fastkernel._machine.run import Run
from fastkernel.estimation.fields import correction
from fastkernel.estimation.fields.field_sums import field_sums, tiles_of
from fastkernel.estimation.fields.frame import Frame
from fastkernel.estimation.solvers.penalties import Penalty

KERNEL, SIDES, TILE = (3, 4), (52, 47), 16
INSIDE = (50, 44)
JIT = pytest.mark.jit
OTHER_MODES = [*weighted.MODES[:2], *weighted.MODES[4:]]
PLACES = [(0, 0), (25.0, 20.5), (49, 43), (10, 40)]


def planted(rng, phi, kernel=KERNEL, *, constant=True):
    """Coefficients whose kernels sum to one scale everywhere."""
    taps = rng.standard_normal((len(phi), *kernel))
    taps[0] *= 4
    if constant:
        taps[1:] -= taps[1:].mean(axis=(1, 2), keepdims=True)
    return taps


def pair_of(rng, *, degree=2, grid=None, noise=0.0, constant=True):
    """A "valid" pair, and the coefficients that made it."""
    source = rng.standard_normal(SIDES) + 2
    phi = varying.functions(INSIDE, degree, grid)
    taps = planted(rng, phi, constant=constant)
    if grid is not None and constant:
        taps += (1 - taps.sum(axis=(1, 2), keepdims=True)) / taps[0].size
    result = varying.convolve(source, phi, taps)
    return source, result + noise * rng.standard_normal(result.shape), taps


@pytest.fixture
def exact(monkeypatch):
    """Corrections go on far below the noise."""
    monkeypatch.setattr(correction, "SEEN", 1e-5)


@pytest.fixture
def tiled(monkeypatch):
    """There are no corrections."""
    monkeypatch.setattr(correction, "SEEN", math.inf)


@pytest.fixture
def by_tiles(monkeypatch):
    """Tiles are asked even of images that need none."""
    place = "fastkernel.estimation.fields.estimate_kernel_field.sums_are_whole"
    monkeypatch.setattr(place, lambda *_: False)


@pytest.mark.parametrize("degree", [0, 1, pytest.param(3, marks=JIT)])
def test_finds_planted_polynomials(degree, rng):
    source, result, taps = pair_of(rng, degree=degree)
    field = estimate_kernel_field(source, result, KERNEL, degree=degree, tile=TILE)
    assert_allclose(field.coefficients, taps, rtol=0, atol=1e-6 * np.abs(taps).max())
    assert field.residual_rms < 1e-6 * result.std()
    for row, col in PLACES:
        values = Frame(INSIDE, degree).values(row, col)
        assert_allclose(field.kernel_at(row, col), np.tensordot(values, taps, 1), atol=1e-5)
    assert_allclose(field.scale_at(*np.array(PLACES).T), taps[0].sum(), rtol=1e-6)


@pytest.mark.parametrize("grid", [(1, 4), *(pytest.param(g, marks=JIT) for g in ((1, 1), (2, 3)))])
def test_finds_planted_cells(grid, rng):
    source, result, taps = pair_of(rng, grid=grid)
    field = estimate_kernel_field(source, result, KERNEL, grid=grid, tile=TILE)
    assert_allclose(field.coefficients, taps, rtol=0, atol=1e-6 * np.abs(taps).max())
    assert_allclose(field.scale_at(*np.array(PLACES).T), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "boundary"),
    [*weighted.MODES[2:4], *(pytest.param(*both, marks=JIT) for both in OTHER_MODES)],
)
def test_finds_planted_polynomials_with_borders(mode, boundary, rng):
    source = rng.random(SIDES)
    rule = boundary or "zero"
    shape = {"valid": INSIDE, "same": SIDES, "full": (54, 50)}[mode]
    phi = varying.polynomials(shape, 1)
    taps = planted(rng, phi)
    result = varying.convolve(source, phi, taps, mode, rule)
    field = estimate_kernel_field(source, result, KERNEL, degree=1, tile=TILE, boundary=boundary)
    assert_allclose(field.coefficients, taps, rtol=0, atol=1e-6 * np.abs(taps).max())
    predicted = field.predict(source)
    fitted = np.isfinite(predicted)
    assert_array_equal(fitted, field.used)
    assert fitted.sum() == (50 * 44 if (mode, boundary) == ("same", None) else result.size)
    assert_allclose(predicted[fitted], result[fitted], atol=1e-5)


def dense(source, result, phi, *, columns, sky=0, weights=None, penalty=None, kernel=KERNEL):
    """Least squares over all pixels: coefficients, covariance, and rms of the residual.

    ``columns`` span the coefficients to choose from.
    """
    rows = varying.rows_of(source, phi, kernel) @ columns
    beside = [f.reshape(-1, 1) for f in varying.polynomials(result.shape, sky - 1)] if sky else []
    rows = np.hstack([rows, *beside])
    w = np.ones(result.size) if weights is None else weights.ravel()
    root = np.sqrt(w)[:, None]
    matrix, answer = root * rows, root[:, 0] * result.ravel()
    if penalty is not None:
        lower = np.linalg.cholesky(columns.T @ penalty @ columns)
        extra = np.hstack([lower.T, np.zeros((len(lower), rows.shape[1] - len(lower)))])
        matrix = np.vstack([matrix, extra])
        answer = np.concatenate([answer, np.zeros(len(lower))])
    found = np.linalg.lstsq(matrix, answer, rcond=None)[0]
    left = w * (result.ravel() - rows @ found) ** 2
    variance = left.sum() / (np.count_nonzero(w) - rows.shape[1])
    covariance = variance * np.linalg.inv(matrix.T @ matrix)
    n = columns.shape[1]
    covariance = columns @ covariance[:n, :n] @ columns.T
    return columns @ found[:n], found[n:], covariance, math.sqrt(left.sum() / w.sum())


def agree(field, expected, phi, source_shape=SIDES):
    taps, sky, covariance, rms = expected
    assert_allclose(field.coefficients.ravel(), taps, rtol=0, atol=2e-6 * np.abs(taps).max())
    assert_allclose(field.residual_rms, rms, rtol=1e-5)
    if field.background is not None:
        degree = len(field.background) - 1
        pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        found = [field.background[pair] for pair in pairs]
        assert_allclose(found, sky, rtol=0, atol=1e-5 * np.abs(sky).max())
    for row, col in ((0, 0), (20, 31)):
        turn = np.kron(phi[:, row, col], np.eye(math.prod(KERNEL)))
        bars = np.sqrt(np.diag(turn @ covariance @ turn.T)).reshape(KERNEL)
        # Those of tiles: of a few tiles right to some percent.
        assert_allclose(field.standard_errors_at(row, col), bars, rtol=0.1)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("scale_degree", [0, pytest.param(1, marks=JIT), 4])
@pytest.mark.parametrize("degree", [0, pytest.param(2, marks=JIT)])
def test_equals_dense_least_squares(degree, scale_degree, rng):
    source, result, _ = pair_of(rng, noise=0.5, constant=False)
    phi = varying.polynomials(INSIDE, degree)
    columns = np.eye(12 * len(phi))
    if scale_degree == 0:
        columns = varying.constant_sum(len(phi), 12)
    elif scale_degree < degree:
        order = [0, 1, 3, 2, 4, 5]  # the constant and the slopes come first
        still = varying.constant_sum(4, 12)[12:, 12:]
        columns = np.zeros((72, 36 + still.shape[1]))
        blocks = np.zeros((6, 12, columns.shape[1]))
        blocks[order[:3]] = np.eye(36).reshape(3, 12, 36) @ np.eye(36, columns.shape[1])
        blocks[order[3:], :, 36:] = still.reshape(3, 12, -1)
        columns = blocks.reshape(72, -1)
    field = estimate_kernel_field(
        source, result, KERNEL, degree=degree, scale_degree=scale_degree, tile=TILE
    )
    agree(field, dense(source, result, phi, columns=columns), phi)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("sky", [1, pytest.param(3, marks=JIT)])
def test_equals_dense_least_squares_beside_a_background(sky, rng):
    source, result, _ = pair_of(rng, noise=0.5)
    result += 100 + 50 * varying.polynomials(INSIDE, 2)[1:].sum(axis=0)
    phi = varying.polynomials(INSIDE, 1)
    expected = dense(source, result, phi, columns=varying.constant_sum(3, 12), sky=sky)
    field = estimate_kernel_field(source, result, KERNEL, degree=1, tile=TILE, background=sky - 1)
    agree(field, expected, phi)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    "kind",
    ["few masked", *(pytest.param(k, marks=JIT) for k in ("most masked", "weights", "all of it"))],
)
def test_equals_dense_least_squares_of_uneven_pixels(kind, rng):
    source, result, _ = pair_of(rng, noise=0.5)
    phi = varying.polynomials(INSIDE, 1)
    share = {"few masked": 0.05, "most masked": 0.6}.get(kind, 0.0)
    asked, weights = {}, np.ones(INSIDE)
    if kind in ("weights", "all of it"):
        weights = rng.uniform(0.5, 2, INSIDE)
        asked["weights"] = weights
    if kind != "weights":
        asked["mask"] = rng.random(INSIDE) < (share or 0.1)
        weights = np.where(asked["mask"], 0, weights)
    if kind == "all of it":
        bad = rng.random(SIDES) < 0.01
        asked["source_mask"] = bad
        weights = np.where(weighted.reached(bad, KERNEL).reshape(INSIDE), 0, weights)
        asked["background"] = 0
    expected = dense(
        source,
        result,
        phi,
        columns=varying.constant_sum(3, 12),
        weights=weights,
        sky=1 if "background" in asked else 0,
    )
    field = estimate_kernel_field(source, result, KERNEL, degree=1, tile=TILE, **asked)
    agree(field, expected, phi)
    assert_array_equal(field.used, weights > 0)
    assert field.n_pixels == (weights > 0).sum()


@pytest.mark.usefixtures("exact")
def test_equals_dense_least_squares_of_a_basis(rng):
    source, result, _ = pair_of(rng, noise=0.5)
    phi = varying.polynomials(INSIDE, 1)
    given = basis.gaussian_polynomials(KERNEL, [0.7, 1.4], [1, 0])
    sums = given.sum(axis=0)
    still = given @ np.linalg.svd(sums[None])[2][1:].T
    columns = np.zeros((36, given.shape[1] + 2 * still.shape[1]))
    columns[:12, : given.shape[1]] = given
    columns[12:24, given.shape[1] : given.shape[1] + still.shape[1]] = still
    columns[24:, given.shape[1] + still.shape[1] :] = still
    field = estimate_kernel_field(source, result, KERNEL, degree=1, tile=TILE, basis=given)
    agree(field, dense(source, result, phi, columns=columns), phi)


def test_a_basis_without_a_sum_has_no_scale(rng):
    source, result, taps = pair_of(rng, degree=1)
    taps[0] -= taps[0].mean()
    result = varying.convolve(source, varying.polynomials(INSIDE, 1), taps)
    still = varying.constant_sum(2, 12)[12:, 12:]
    field = estimate_kernel_field(source, result, KERNEL, degree=1, tile=TILE, basis=still)
    assert_allclose(field.coefficients, taps, rtol=0, atol=1e-6 * np.abs(taps).max())


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("grid", [None, pytest.param((2, 2), marks=JIT)])
@pytest.mark.parametrize("smooth", [pytest.param(False, marks=JIT), True])
def test_equals_dense_least_squares_with_a_ridge(smooth, grid, rng):
    source, result, _ = pair_of(rng, noise=0.5)
    phi = varying.functions(INSIDE, 1, grid)
    flat = phi.reshape(len(phi), -1)
    matrix = Penalty(1.0, smooth).matrix(KERNEL).toarray()
    penalty = 0.3 * np.kron(flat @ flat.T, matrix)
    columns = np.eye(12 * len(phi))
    expected = dense(source, result, phi, columns=columns, penalty=penalty)
    field = estimate_kernel_field(
        source,
        result,
        KERNEL,
        degree=1,
        grid=grid,
        scale_degree=4,
        tile=TILE,
        ridge=("smooth", 0.3) if smooth else 0.3,
    )
    agree(field, expected, phi)
    assert_allclose(field.ridge, 0.3)


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("ridge", ["gcv", ("smooth", "gcv")], ids=str)
def test_chooses_a_ridge(ridge, rng):
    source, result, _ = pair_of(rng, noise=0.5)
    own = estimate_kernel(source, result, KERNEL, ridge=ridge, background=0)
    field = estimate_kernel_field(
        source, result, KERNEL, degree=0, tile=TILE, ridge=ridge, background=0
    )
    assert_allclose(field.ridge, own.ridge, rtol=1e-3)
    assert_allclose(field.kernel_at(3, 4), own.kernel, rtol=0, atol=1e-6)
    assert_allclose(field.standard_errors_at(3, 4), own.standard_errors, rtol=1e-5)


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("grid", [pytest.param(None, marks=JIT), (2, 2)])
@pytest.mark.usefixtures("by_tiles")
def test_without_corrections_functions_are_constant_in_tiles(grid, rng):
    source, result, _ = pair_of(rng, noise=0.5)
    phi, frame = varying.functions(INSIDE, 2, grid), Frame(INSIDE, 2, grid)
    pair = Pair(source, result, window_of_pair(SIDES, INSIDE, KERNEL, None))
    places = field_sums(pair, KERNEL, frame, TILE, None, Run()).places
    steps = varying.frozen(phi, tiles_of(INSIDE, TILE), places, frame.values)
    columns = np.eye(12 * len(phi))
    field = estimate_kernel_field(source, result, KERNEL, grid=grid, scale_degree=4, tile=TILE)
    taps, _, covariance, rms = dense(source, result, steps, columns=columns)
    assert_allclose(field.coefficients.ravel(), taps, rtol=0, atol=1e-10)
    assert_allclose(field.residual_rms, rms, rtol=1e-10)
    turn = np.kron(phi[:, 20, 31], np.eye(12))
    bars = np.sqrt(np.diag(turn @ covariance @ turn.T)).reshape(KERNEL)
    assert_allclose(field.standard_errors_at(20, 31), bars, rtol=1e-8)


@pytest.mark.parametrize("noise", [0.01, pytest.param(30.0, marks=JIT)])
@pytest.mark.usefixtures("by_tiles")
def test_no_tap_is_biased_by_much_of_its_standard_error(noise, monkeypatch, rng):
    source, clean, taps = pair_of(rng, degree=1)
    asked = {"degree": 1, "tile": 8}
    result = clean + noise * rng.standard_normal(clean.shape)
    field = estimate_kernel_field(source, result, KERNEL, **asked)
    with monkeypatch.context() as patch:
        patch.setattr(correction, "SEEN", math.inf)
        alone = estimate_kernel_field(source, result, KERNEL, **asked)
        biased = estimate_kernel_field(source, clean, KERNEL, **asked)
    hidden = np.array_equal(alone.coefficients, field.coefficients)
    assert hidden == (noise > 1)
    worst = 0.0
    for row, col in PLACES:
        off = biased.kernel_at(row, col)
        off -= np.tensordot(Frame(INSIDE, 1).values(row, col), taps, 1)
        worst = max(worst, np.abs(off / field.standard_errors_at(row, col)).max())
    assert (worst <= 0.3) == hidden


@pytest.mark.jit
def test_what_is_bad_has_no_say(rng):
    source, result, _ = pair_of(rng, noise=0.1)
    bad, source_bad = rng.random(INSIDE) < 0.05, rng.random(SIDES) < 0.01
    asked = {"degree": 1, "tile": TILE, "background": 1}
    clean = estimate_kernel_field(source, result, KERNEL, mask=bad, source_mask=source_bad, **asked)
    y, x = np.where(bad, np.nan, result), np.where(source_bad, np.inf, source)
    same = estimate_kernel_field(x, y, KERNEL, nan_policy="omit", **asked)
    y, x = np.where(bad, 1e30, result), np.where(source_bad, 1e30, source)
    masked = estimate_kernel_field(
        np.ma.array(x, mask=source_bad), np.ma.array(y, mask=bad), KERNEL, **asked
    )
    high = estimate_kernel_field(x, y, KERNEL, saturation=(None, 1e29), **asked)
    for field in (same, masked, high):
        assert_array_equal(field.coefficients, clean.coefficients)
        assert_array_equal(field.used, clean.used)
    with pytest.raises(ValueError, match=r"result must be finite.*nan_policy='omit'"):
        estimate_kernel_field(source, np.where(bad, np.nan, result), KERNEL, **asked)


@pytest.mark.jit
def test_clips_what_sticks_out(rng):
    source, result, _ = pair_of(rng, noise=0.1)
    wild = rng.random(INSIDE) < 0.03
    result[wild] += 500 * rng.standard_normal(wild.sum())
    asked = {"tile": TILE, "background": 0}
    field = estimate_kernel_field(source, result, KERNEL, sigma_clip=4, **asked)
    sure = wild & (np.abs(result) > 50)
    assert not field.used[sure].any()
    assert (~field.used & ~wild).sum() <= 5
    again = estimate_kernel_field(source, result, KERNEL, mask=~field.used, **asked)
    assert_allclose(field.coefficients, again.coefficients, rtol=0, atol=1e-9)
    assert_allclose(field.residual_rms, 0.1, rtol=0.1)
    none = estimate_kernel_field(source, result, KERNEL, mask=wild, sigma_clip=20, **asked)
    plain = estimate_kernel_field(source, result, KERNEL, mask=wild, **asked)
    assert_array_equal(none.coefficients, plain.coefficients)


@pytest.mark.jit
def test_takes_the_noise_of_the_source_off(rng):
    clean, result, taps = pair_of(rng, degree=1)
    variance = rng.uniform(0.2, 0.4, SIDES)
    found = []
    for given in (None, variance):
        off = []
        for _ in range(8):
            source = clean + np.sqrt(variance) * rng.standard_normal(SIDES)
            field = estimate_kernel_field(
                source,
                result,
                KERNEL,
                degree=1,
                tile=TILE,
                source_variance=given,
                ridge=0.0 if given is None else 1e-9,
            )
            off.append(field.coefficients - taps)
        found.append(np.linalg.norm(np.mean(off, axis=0)))
    assert found[1] < 0.35 * found[0]
    assert np.isnan(field.standard_errors_at(3, 3)).all()
    smooth = estimate_kernel_field(
        source, result, KERNEL, degree=1, tile=TILE, source_variance=variance
    )
    assert_allclose(smooth.ridge, 0.05 * variance.mean())


@pytest.mark.jit
def test_the_same_bits_for_any_workers(rng):
    source, result, _ = pair_of(rng, noise=0.01)
    asked = {"tile": 8, "background": 0, "mask": rng.random(INSIDE) < 0.1, "sigma_clip": 3}
    once = estimate_kernel_field(source, result, KERNEL, workers=1, **asked)
    for workers in (2, 3):
        again = estimate_kernel_field(source, result, KERNEL, workers=workers, **asked)
        assert_array_equal(again.coefficients, once.coefficients)
        assert again.residual_rms == once.residual_rms


def test_reports_and_can_be_stopped(rng):
    source, result, _ = pair_of(rng, degree=0)
    calls = []

    def heard(done, total):
        calls.append((done, total))

    estimate_kernel_field(source, result, KERNEL, degree=0, tile=8, callback=heard)
    assert calls[-1][0] == calls[-1][1]
    assert calls == sorted(calls)

    def stop(done, total):
        msg = "enough"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="enough"):
        estimate_kernel_field(source, result, KERNEL, degree=0, tile=8, callback=stop)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"degree": 5}, r"degree must be an integer from 0 to 4, got 5"),
        ({"degree": 1.5}, r"degree must be an integer from 0 to 4, got 1.5"),
        ({"degree": True}, r"degree must be an integer from 0 to 4, got True"),
        ({"scale_degree": -1}, r"scale_degree must be an integer from 0 to 4, got -1"),
        ({"scale_degree": "2"}, r"scale_degree must be an integer from 0 to 4, got '2'"),
        ({"grid": (0, 2)}, r"grid must .*\(0, 2\)"),
        ({"grid": (30, 30)}, r"12 taps for each of 900 functions of position, more than 8192"),
        ({"tile": 7}, r"tile must be at least 8 pixels, got 7"),
        ({"tile": 0}, r"tile must be a positive integer, got 0"),
        ({"basis": np.eye(5)}, r"basis must have one row a tap, 12 of kernel_shape \(3, 4\)"),
        ({"sigma_clip": 1}, r"sigma_clip must be at least 1.5"),
        ({"ridge": -1.0}, r"ridge must be finite and at least 0"),
        ({"background": 7}, r"background must be None, 'constant' or a polynomial degree"),
    ],
    ids=str,
)
def test_refuses(asked, message, rng):
    source, result, _ = pair_of(rng)
    with pytest.raises(ValueError, match=message):
        estimate_kernel_field(source, result, KERNEL, **asked)


def test_refuses_what_does_not_determine_it(rng):
    source, result, _ = pair_of(rng)
    with pytest.raises(ValueError, match=r"must be one image each, got 2 of each"):
        estimate_kernel_field([source] * 2, [result] * 2, KERNEL)
    with pytest.raises(SingularFitError, match=r"the source is flat.*, or a lower degree"):
        estimate_kernel_field(np.ones(SIDES), result, KERNEL)
    with pytest.raises(SingularFitError, match=r", or fewer cells in the grid"):
        estimate_kernel_field(np.ones(SIDES), result, KERNEL, grid=2)
    with pytest.raises(SingularFitError, match=r"6 pixels for 67 taps"):
        estimate_kernel_field(source, result, KERNEL, mask=np.arange(2200).reshape(INSIDE) > 5)
    mask = np.ones(INSIDE, bool)
    mask[:, :10] = False
    with pytest.raises(SingularFitError, match=r"or fewer cells in the grid"):
        estimate_kernel_field(source, result, KERNEL, grid=(1, 4), mask=mask)


@pytest.mark.jit
@pytest.mark.usefixtures("by_tiles")
def test_the_bias_of_all_tiles_follows_from_some(monkeypatch, rng):
    source, result, _ = pair_of(rng, degree=1, noise=1.0)
    found, bias_of_tiles = [], correction.bias_of_tiles

    def heard(passes, places):
        for some in (48, 20, 12):
            monkeypatch.setattr(correction, "_LOOKED_AT", some)
            found.append(bias_of_tiles(passes, places))
        return found[0]

    monkeypatch.setattr(correction, "bias_of_tiles", heard)
    estimate_kernel_field(source, result, KERNEL, degree=1, tile=8)
    monkeypatch.setattr(correction, "SEEN", math.inf)
    exact = estimate_kernel_field(source, result - result, KERNEL, degree=1, tile=8)
    assert not exact.coefficients.any()
    assert found[0] > 0
    assert 0.3 * found[0] < found[1] < 3 * found[0]
    assert 0.3 * found[0] < found[2] < 3 * found[0]


@pytest.mark.parametrize("shape", [(3, 90), (90, 4), (9, 9)])
@pytest.mark.jit
def test_takes_narrow_images(shape, rng):
    phi = varying.polynomials(shape, 1)
    taps = planted(rng, phi, (2, 2))
    source = rng.standard_normal((shape[0] + 1, shape[1] + 1))
    result = varying.convolve(source, phi, taps)
    field = estimate_kernel_field(source, result, 2, degree=1)
    assert_allclose(field.coefficients, taps, rtol=0, atol=1e-6 * np.abs(taps).max())
