"""Richardson-Lucy equals its formulas, and does on photographs what it is for."""

import functools
import hashlib
import itertools

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal
from shared import JIT, disk, gaussian, photo

from fastkernel.convolution import convolution_engines as convolve_engines
from fastkernel.restoration import blur
from fastkernel.restoration import richardson_lucy as module

# All iterations that are asked for, however noisy the image.
richardson_lucy = functools.partial(module.richardson_lucy, noise=None)

RULES = ["zero", "circular", "replicate", "symmetric", "mirror"]
BORDERS = ["unknown", *RULES]


def matrix(shape, psf, boundary):
    """The blur as a matrix: the outcome for every image of a single light pixel."""
    m, n = shape
    p, q = psf.shape
    if boundary == "unknown":
        grid = m + p - 1, n + q - 1
        columns = [
            naive.convolve(unit.reshape(grid), psf).ravel() for unit in np.eye(np.prod(grid))
        ]
        return np.array(columns).T, grid
    columns = [
        naive.filtered(unit.reshape(shape), psf, "same", boundary).ravel() for unit in np.eye(m * n)
    ]
    return np.array(columns).T, shape


def transcription(y, psf, n, boundary, weights=None, damping=0.0, accelerated=False):
    """The update as it is published, in dense algebra."""
    blur, grid = matrix(y.shape, psf, boundary)
    w = np.ones(y.size) if weights is None else weights.ravel()
    data = np.where(w > 0, y.ravel(), 0)
    seen = blur.T @ w
    mean = (w * data).sum() / w.sum() / psf.sum()
    x = np.full(blur.shape[1], mean)
    older, steps = x, []
    for k in range(n):
        z = x
        if accelerated and k >= 2:
            factor = steps[-1] @ steps[-2] / (steps[-2] @ steps[-2])
            z = np.maximum(x + min(max(factor, 0), 1) * (x - older), 0)
        ratio = blur.T @ (w * data / (blur @ z))
        good = seen > 1e-3 * seen.max()
        found = np.where(good, z * ratio / np.where(good, seen, 1), z)
        if damping:
            image = z.reshape(grid)
            dy = np.diff(image, axis=0, append=image[-1:])
            dx = np.diff(image, axis=1, append=image[:, -1:])
            flat = 1e-6 * 2.0 ** np.frexp(data.max())[1] / psf.sum()
            length = np.sqrt(dy**2 + dx**2 + (8 * damping * image + flat) ** 2)
            divergence = np.diff(dy / length, axis=0, prepend=0)
            divergence += np.diff(dx / length, axis=1, prepend=0)
            found = np.where(good, found / (1 - damping * divergence.ravel()), z)
        steps.append(found - z)
        older, x = x, found
    m, n = y.shape
    (p, q), extended = psf.shape, boundary == "unknown"
    top, left = (p - 1 - (p - 1) // 2, q - 1 - (q - 1) // 2) if extended else (0, 0)
    return x.reshape(grid)[top : top + m, left : left + n]


@pytest.fixture
def tiny(small_tiles, monkeypatch):
    monkeypatch.setattr(blur, "TILE_SHAPE", (3, 5))


@pytest.mark.parametrize("boundary", BORDERS)
@pytest.mark.parametrize("psf_shape", [(3, 3), (4, 2), (1, 5), (8, 9)])
def test_plain_equals_the_published_update(boundary, psf_shape, rng):
    y, psf = rng.random((8, 9)) * 100, rng.random(psf_shape)
    got = richardson_lucy(y, psf, 8, acceleration=False, boundary=boundary)
    assert got.dtype == np.float64
    assert_allclose(got, transcription(y, psf, 8, boundary), rtol=1e-9)


@pytest.mark.parametrize("boundary", ["unknown", "circular", "mirror"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_tiles_weights_and_damping(boundary, accelerated, rng, tiny):
    y, psf = rng.random((8, 9)) * 100, rng.random((3, 4))
    weights = rng.random((8, 9)) * (rng.random((8, 9)) > 0.1)
    options = {"weights": weights, "damping": 0.05}
    got = richardson_lucy(y, psf, 6, acceleration=accelerated, boundary=boundary, **options)
    want = transcription(y, psf, 6, boundary, accelerated=accelerated, **options)
    assert_allclose(got, want, rtol=1e-9)


@pytest.fixture(params=["direct", "fft", "in one go"])
def engine(request, tiny, monkeypatch):
    """Convolve in one way, whatever is fastest."""
    in_one_go, run = request.param == "in one go", convolve_engines.Correlation.run
    if not in_one_go:
        monkeypatch.setattr(
            convolve_engines.Correlation,
            "run",
            lambda self, _, workers: run(self, request.param, workers),
        )
    monkeypatch.setattr(blur, "round_trip_pays", lambda *shapes, **options: in_one_go)


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("shapes", [((9, 8), (3, 3)), ((40, 51), (4, 2)), ((33, 7), (1, 6))])
def test_every_engine(shapes, accelerated, engine, rng):
    y, psf = rng.random(shapes[0]), rng.random(shapes[1])
    options = {"weights": rng.random(y.shape), "damping": 0.02}
    got = richardson_lucy(y, psf, 5, acceleration=accelerated, **options)
    want = transcription(y, psf, 5, "unknown", accelerated=accelerated, **options)
    assert_allclose(got, want, rtol=1e-9)


def test_a_psf_of_dark_corners(engine, rng):
    """What stands in a tile's corner is then blurred to nothing."""
    y, psf = rng.random((40, 51)), rng.random((5, 4))
    psf[::4, ::3] = 0
    got = richardson_lucy(y, psf, 5, acceleration=False)
    assert_allclose(got, transcription(y, psf, 5, "unknown"), rtol=1e-9)


@pytest.mark.parametrize("noise", [0.05, "poisson"])
def test_every_engine_stops_at_the_same_iteration(noise, engine, rng):
    psf = rng.random((3, 4)) + 0.1
    y = naive.filtered(rng.random((40, 37)) + 1, psf / psf.sum(), "same", "symmetric")
    y *= 200 if noise == "poisson" else 1
    answer, done = counted(y, psf, 50, noise=noise, workers=1)
    assert 0 < len(done) < 50
    again = richardson_lucy(y, psf, 50, noise=noise, workers=3)
    assert_array_equal(again, answer)
    blurred = naive.filtered(answer, psf, "valid", "zero")
    inside = y[1:-1, 2:-1]  # whose blur knows no border
    if noise == "poisson":
        assert 2 * poisson_misfit(inside, blurred) / inside.size < 1.1
    else:
        assert np.sqrt(np.square(blurred - inside).mean()) < 1.1 * noise


@pytest.mark.jit
@pytest.mark.parametrize("psf", [disk(15), gaussian(15, 2.0)], ids=["disk", "gaussian"])
def test_a_photograph_restored_by_convolutions_of_scipy(psf):
    y = signal.fftconvolve(photo()[:150, :140], psf, "valid")
    x = np.full((150, 140), y.mean())
    seen = signal.fftconvolve(np.ones_like(y), psf)
    for _ in range(20):
        ratio = signal.fftconvolve(y / signal.fftconvolve(x, psf, "valid"), psf[::-1, ::-1])
        x = np.where(seen > 1e-3 * seen.max(), x * ratio / np.maximum(seen, 1e-9), x)
    want = x[7:-7, 7:-7]
    got = richardson_lucy(y, psf, 20, acceleration=False)
    assert_allclose(got, want, rtol=1e-9 if seen.min() > 1e-3 else 1e-6)
    single = richardson_lucy(y.astype(np.float32), psf, 20, acceleration=False)
    assert single.dtype == np.float32
    assert_allclose(single, want, atol=1e-4 * want.max())


def test_zeros_around_a_psf_change_nothing(rng):
    y, psf = rng.random((12, 13)), rng.random((3, 4))
    for boundary in ("unknown", "mirror"):
        plain = richardson_lucy(y, psf, 5, boundary=boundary)
        padded = richardson_lucy(y, np.pad(psf, ((2, 2), (3, 3))), 5, boundary=boundary)
        assert_allclose(padded, plain, rtol=1e-12)


def test_a_drop_in_for_scikit_image(rng):
    restoration = pytest.importorskip("skimage.restoration")
    image, psf = np.zeros((60, 60)), gaussian(5, 1.0)
    image[28:32, 28:32] = rng.random((4, 4))
    y = naive.filtered(image, psf, "same", "zero") + 1e-3
    got = richardson_lucy(y, psf, 3, acceleration=False, boundary="circular")
    want = restoration.richardson_lucy(y, psf, 3, clip=False)
    assert_allclose(got[18:-18, 18:-18], want[18:-18, 18:-18], rtol=1e-6)


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("boundary", BORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_image_stays_constant_to_the_edge(accelerated, boundary, dtype):
    image = np.full((20, 24), 37.5, dtype)
    options = {"boundary": boundary, "acceleration": accelerated}
    if boundary == "zero":
        image = naive.filtered(image, gaussian(7, 1.5), "same", "zero").astype(dtype)
    got = richardson_lucy(image, gaussian(7, 1.5), 30, damping=0.01, **options)
    assert_allclose(got, 37.5, rtol=2e-3 if boundary == "zero" else 1e-5)


def test_light_is_kept(rng):
    y, psf = rng.random((20, 21)), rng.random((4, 5))
    for accelerated in (False, True):
        got = richardson_lucy(y, psf, 7, acceleration=accelerated, boundary="circular")
        assert_allclose(got.sum() * psf.sum(), y.sum(), rtol=1e-12)
        got = richardson_lucy(y, psf, 7, acceleration=accelerated, boundary="zero")
        blurred = naive.filtered(got, psf, "same", "zero")
        assert_allclose(blurred.sum(), y.sum(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_scale(dtype, rng):
    y, psf = rng.random((12, 12)).astype(dtype), rng.random((3, 3))
    want = richardson_lucy(y, psf, 6, damping=0.01)
    for power in (-100, -20, 7, 100):
        scaled = richardson_lucy(y * dtype(2.0**power), psf, 6, damping=0.01)
        assert_array_equal(scaled, want * dtype(2.0**power))
        scaled = richardson_lucy(y, psf * 2.0**power, 6, damping=0.01)
        assert_array_equal(scaled, want * dtype(2.0**-power))


def test_dark_places_are_no_trouble(rng):
    assert_array_equal(richardson_lucy(np.zeros((9, 9)), gaussian(3, 1.0)), 0)
    stars = np.zeros((30, 30))
    stars[(3, 15, 22), (4, 28, 11)] = 1e6, 1, 1e-6
    num_iter = 100 if JIT else 20
    for dtype in (np.float32, np.float64):
        for boundary in BORDERS:
            got = richardson_lucy(stars.astype(dtype), disk(7), num_iter, boundary=boundary)
            assert np.isfinite(got).all()
            assert got.min() >= 0


def poisson_misfit(y, model):
    return (model - y + y * np.log(np.maximum(y, 1e-300) / model)).sum()


@pytest.mark.jit
@pytest.mark.parametrize("psf", [disk(11), gaussian(15, 2.0)], ids=["disk", "gaussian"])
@pytest.mark.parametrize("noisy", [False, True])
def test_acceleration_saves_four_fifths_of_the_iterations(psf, noisy, rng):
    y = signal.fftconvolve(photo()[100:330, 100:330] + 1, psf, "valid")
    y = rng.poisson(y).astype(float) if noisy else y

    def misfit(n, accelerated):
        x = richardson_lucy(y, psf, n, acceleration=accelerated, boundary="zero")
        return poisson_misfit(y, signal.fftconvolve(x, psf, "same"))

    assert misfit(40, accelerated=True) < misfit(200, accelerated=False)


@pytest.mark.jit
@pytest.mark.parametrize("name", ["camera", "brick"])
@pytest.mark.parametrize("psf", [disk(15), gaussian(15, 2.0)], ids=["disk", "gaussian"])
def test_the_border_is_nearly_as_good_as_the_inside(name, psf):
    restoration = pytest.importorskip("skimage.restoration")
    scene = photo(name)
    y = signal.fftconvolve(scene, psf, "same")[60:220, 60:220]

    def profile(x):
        error = (x - scene[60:220, 60:220]) ** 2
        inside, rim = error[30:-30, 30:-30], np.ones(error.shape, bool)
        rim[7:-7, 7:-7] = False
        return np.sqrt(error[rim].mean() / inside.mean())

    assert profile(richardson_lucy(y, psf, 40)) < 2
    assert profile(richardson_lucy(y, psf, 40, acceleration=False)) < 2
    assert profile(restoration.richardson_lucy(y, psf, 40, clip=False)) > 5


def test_bad_pixels_may_hold_anything(rng):
    scene, psf = rng.random((40, 40)) + 0.5, gaussian(5, 1.0)
    y = naive.convolve(scene, psf)
    weights = np.ones(y.shape)
    weights[10, 12:15] = 0
    answers = []
    for bad in (np.nan, -1e9, np.inf, 0.0):
        spoilt = np.where(weights > 0, y, bad)
        answers.append(richardson_lucy(spoilt, psf, 50, weights=weights))
    for answer in answers[1:]:
        assert_array_equal(answer, answers[0])
    assert_allclose(naive.convolve(answers[0], psf)[8, 10:13], y[10, 12:15], rtol=0.1)


def test_damping_smooths(rng):
    scene, psf = np.kron(rng.random((4, 4)), np.ones((8, 8))) * 100, gaussian(5, 1.0)
    y = rng.poisson(naive.filtered(scene, psf, "same", "symmetric")).astype(float)
    errors = [np.square(richardson_lucy(y, psf, 60, damping=d) - scene).mean() for d in (0, 0.02)]
    assert errors[1] < 0.8 * errors[0]


def counted(*args, **options):
    done = []
    answer = richardson_lucy(*args, callback=lambda *counts: done.append(counts), **options)
    return answer, done


def test_it_stops_when_the_steps_are_small(rng):
    y, psf = naive.convolve(rng.random((30, 30)) + 1, gaussian(3, 0.7)), gaussian(3, 0.7)
    answer, done = counted(y, psf, 300, tol=1e-3, acceleration=False)
    n = len(done)
    assert 2 < n < 300
    assert done[-1] == (n, 300)
    assert_array_equal(answer, richardson_lucy(y, psf, n, acceleration=False))
    shorter = [richardson_lucy(y, psf, k, acceleration=False) for k in (n - 2, n - 1, n)]
    steps = [np.linalg.norm(b - a) for a, b in itertools.pairwise(shorter)]
    sizes = [np.linalg.norm(x) for x in shorter[1:]]
    assert steps[1] / sizes[1] < 1.2e-3
    assert steps[0] / sizes[0] > 0.8e-3


@pytest.mark.parametrize("accelerated", [False, True])
def test_it_stops_when_the_noise_is_reached(accelerated, rng):
    scene, psf = np.kron(rng.random((6, 6)), np.ones((5, 5))) * 100 + 20, gaussian(5, 1.0)
    clean = naive.filtered(scene, psf, "same", "circular")
    options = {"boundary": "circular", "acceleration": accelerated}

    y = np.maximum(clean + 3 * rng.standard_normal(scene.shape), 0)
    answer, done = counted(y, psf, 500, noise=3.2, **options)
    residual = naive.filtered(answer, psf, "same", "circular") - y
    assert np.sqrt(np.square(residual).mean()) <= 3.2
    assert 1 < len(done) < 500
    before = richardson_lucy(y, psf, len(done) - 1, **options)
    residual = naive.filtered(before, psf, "same", "circular") - y
    assert np.sqrt(np.square(residual).mean()) > 3.2
    weights = np.ones(y.shape)
    same = richardson_lucy(y, psf, 500, noise=3.2, weights=weights, **options)
    assert_array_equal(same, answer)

    y = rng.poisson(clean).astype(float)
    answer, done = counted(y, psf, 500, noise="poisson", **options)
    assert len(done) < 500
    blurred = naive.filtered(answer, psf, "same", "circular")
    assert 2 * poisson_misfit(y, blurred) / y.size <= 1


@pytest.mark.parametrize("accelerated", [False, True])
def test_workers_change_nothing(accelerated, rng, tiny):
    y, psf = rng.random((23, 31)), rng.random((3, 3))
    options = {"acceleration": accelerated, "damping": 0.01, "tol": 1e-9, "noise": 1e-9}
    want = richardson_lucy(y, psf, 6, workers=1, **options)
    for workers in (2, 5, None):
        assert_array_equal(richardson_lucy(y, psf, 6, workers=workers, **options), want)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a.astype(">f8"),
        lambda a: np.flip(np.flip(a).copy()),
        lambda a: a.astype(np.uint8),
        lambda a: a.tolist(),
    ],
)
def test_layouts_and_dtypes_change_nothing_and_inputs_are_left_alone(layout, rng):
    y = rng.integers(0, 255, (12, 14)).astype(float)
    image, psf = layout(y), rng.random((3, 3))
    if isinstance(image, np.ndarray):
        image.flags.writeable = psf.flags.writeable = False
        before = hashlib.sha256(image.tobytes()).hexdigest()
    want = richardson_lucy(y, psf, 4)
    assert_array_equal(richardson_lucy(image, psf, 4), want)
    if isinstance(image, np.ndarray):
        assert hashlib.sha256(image.tobytes()).hexdigest() == before


def test_channels(rng):
    y, psf = rng.random((3, 12, 14)), rng.random((3, 3, 3))
    weights = rng.random((3, 12, 14))
    got, done = counted(
        np.moveaxis(y, 0, -1), psf[0], 4, channel_axis=-1, weights=np.moveaxis(weights, 0, -1)
    )
    for i in range(3):
        assert_array_equal(got[..., i], richardson_lucy(y[i], psf[0], 4, weights=weights[i]))
    assert done == [(i, 12) for i in range(1, 13)]
    got = richardson_lucy(y, psf, 4, channel_axis=0, weights=weights[0])
    for i in range(3):
        assert_array_equal(got[i], richardson_lucy(y[i], psf[i], 4, weights=weights[0]))


def test_clip(rng):
    y, psf = rng.random((12, 12)), gaussian(5, 1.5)
    free = richardson_lucy(y, psf, 20)
    assert free.max() > 1
    assert_array_equal(richardson_lucy(y, psf, 20, clip=(0.1, 1)), free.clip(0.1, 1))
    assert_array_equal(richardson_lucy(y, psf, 20, clip=(None, 1)), free.clip(None, 1))


def test_an_exception_in_the_callback_ends_the_work(rng):
    done = []

    def callback(iteration, total):
        done.append(iteration)
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        richardson_lucy(rng.random((9, 9)), gaussian(3, 1.0), callback=callback)
    assert done == [1, 2, 3]


IMAGE, PSF = np.ones((8, 9)), np.ones((3, 3)) / 9
NAN, NEGATIVE = IMAGE.copy(), IMAGE.copy()
NAN[2, 3], NEGATIVE[2, 3] = np.nan, -1

CASES = {
    "negative pixel": (
        {"image": NEGATIVE},
        ValueError,
        r"image must be finite and not negative .* got -1\.0 at index \(2, 3\); .* weight 0",
    ),
    "nan": ({"image": NAN}, ValueError, r"image must be finite .* got nan at index \(2, 3\)"),
    "infinite": ({"image": np.inf * IMAGE}, ValueError, r"image must be finite .* got inf"),
    "complex": ({"image": 1j * IMAGE}, TypeError, r"image must hold real numbers"),
    "colours": ({"image": np.ones((8, 9, 3))}, ValueError, r"pass channel_axis="),
    "large psf": (
        {"psf": np.ones((9, 3))},
        ValueError,
        r"psf must not be larger than the image, got shape \(9, 3\) for \(8, 9\); crop it",
    ),
    "dark psf": ({"psf": 0 * PSF}, ValueError, r"psf must not be zero everywhere"),
    "nan psf": ({"psf": np.nan * PSF}, ValueError, r"psf must be finite, got nan"),
    "negative psf": (
        {"psf": -PSF},
        ValueError,
        r"psf must not be negative in Richardson-Lucy, got -0\.1.* at index \(0, 0\).* wiener",
    ),
    "psf of other channels": (
        {"image": np.ones((3, 8, 9)), "psf": np.ones((2, 3, 3)), "channel_axis": 0},
        ValueError,
        r"psf must have as many channels as image, .* got 2 and 3",
    ),
    "nan in a channel's psf": (
        {"image": np.ones((2, 8, 9)), "psf": np.nan * np.ones((2, 3, 3)), "channel_axis": 0},
        ValueError,
        r"psf of channel 0 must be finite",
    ),
    "weights of another shape": (
        {"weights": np.ones((9, 8))},
        ValueError,
        r"weights must have the shape of the image .*\(8, 9\), got \(9, 8\)",
    ),
    "weights of other channels": (
        {"image": np.ones((3, 8, 9)), "weights": np.ones((2, 8, 9)), "channel_axis": 0},
        ValueError,
        r"weights must have the shape of the image .*\(8, 9\), got \(2, 8, 9\)",
    ),
    "negative weights": (
        {"weights": -IMAGE},
        ValueError,
        r"weights must not be negative, got -1\.0; use 0 for a bad pixel",
    ),
    "nan weights": ({"weights": NAN}, ValueError, r"weights must be finite"),
    "no weights": ({"weights": 0 * IMAGE}, ValueError, r"weights must be above 0 somewhere"),
    "no iterations": ({"num_iter": 0}, ValueError, r"num_iter must be a positive integer, got 0"),
    "half an iteration": ({"num_iter": 0.5}, ValueError, r"num_iter must be a positive integer"),
    "reflect": ({"boundary": "reflect"}, ValueError, r"say 'symmetric' .* or one of 'unknown'"),
    "strong damping": ({"damping": 0.3}, ValueError, r"damping must be below 0\.25, .* got 0\.3"),
    "negative damping": ({"damping": -1}, ValueError, r"damping must be finite and at least 0"),
    "negative tol": ({"tol": -1}, ValueError, r"tol must be finite and at least 0"),
    "named noise": ({"noise": "gaussian"}, TypeError, r"noise must be a number, got 'gaussian'"),
    "empty clip": ({"clip": (1, 0)}, ValueError, r"clip must be \(low, high\) with low < high"),
    "one clip": ({"clip": 1}, ValueError, r"clip must be \(low, high\) with low < high.* got 1"),
    "no workers": ({"workers": 0}, ValueError, r"workers must be a positive integer"),
}


@pytest.mark.parametrize("case", CASES)
def test_refusals(case):
    changes, error, message = CASES[case]
    arguments = {"image": IMAGE, "psf": PSF, **changes}
    with pytest.raises(error, match=message):
        richardson_lucy(**arguments)
