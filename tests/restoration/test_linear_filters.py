"""The filters equal their formulas, choose well, and tiles leave no seams worth speaking of."""

import numpy as np
import pytest
from naive import filtered
from numpy.testing import assert_allclose, assert_array_equal
from scipy import fft, signal
from shared import disk, gaussian, photo

from fastkernel._machine import image_transforms, pair_transforms
from fastkernel.restoration import cross_validation, unknown_border
from fastkernel.restoration.framing import extended, tapered
from fastkernel.restoration.linear_filters import gcv_balance, inverse_filter, wiener
from fastkernel.restoration.richardson_lucy import richardson_lucy
from fastkernel.restoration.tiled import restore_tiled


def spectrum(psf, shape):
    """The transform of a PSF about its centre tap."""
    p, q = psf.shape
    full = np.zeros(shape)
    full[:p, :q] = psf
    return fft.fft2(np.roll(full, (-((p - 1) // 2), -((q - 1) // 2)), (0, 1)))


def wiener_of_the_book(y, psf, balance):
    h = spectrum(psf, y.shape)
    laplacian = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    penalty = np.abs(spectrum(laplacian, y.shape)) ** 2
    return fft.ifft2(h.conj() * fft.fft2(y) / (np.abs(h) ** 2 + balance * penalty)).real


BORDERS = ["circular", "symmetric", "edge_taper", "unknown"]


@pytest.fixture
def exact(monkeypatch):
    """Conjugate gradients go on until rounding stops them."""
    monkeypatch.setattr(unknown_border, "TOLERANCE", 1e-12)
    monkeypatch.setattr(unknown_border, "HIDDEN", 0)
    monkeypatch.setattr(unknown_border, "MAX_ITERATIONS", 400)


SHAPES = [(8, 8), (9, 13), (30, 7), (17, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("psf_shape", [(3, 3), (4, 2), (1, 6), (7, 7)])
def test_wiener_equals_its_formula(shape, psf_shape, rng):
    y, psf = rng.random(shape), rng.random(psf_shape)
    got = wiener(y, psf, 0.3, boundary="circular")
    assert got.dtype == np.float64
    assert_allclose(got, wiener_of_the_book(y, psf, 0.3), atol=1e-12)
    single = wiener(y.astype(np.float32), psf, 0.3, boundary="circular")
    assert single.dtype == np.float32
    assert_allclose(single, got, atol=2e-5 * np.abs(got).max())


def test_wiener_equals_that_of_scikit_image(rng):
    peer = pytest.importorskip("skimage.restoration")
    y, psf = rng.random((40, 42)), gaussian(7, 1.5)
    got = wiener(y, psf, 0.1, boundary="circular")
    assert_allclose(got, peer.wiener(y, psf, 0.1, clip=False), atol=1e-12)


def test_mirror_images_stand_beyond_the_frame(rng):
    """What is read beyond the frame is the mirror image first, and leads to the other side."""
    image = rng.random((20, 30))
    rows, (m, n) = extended(image, (5, 7))
    out = np.empty((m, n))
    for top in range(m):
        rows.read(top, out[top : top + 1])
    assert_array_equal(out[:20, :30], image)
    size = n - 30
    assert size >= 12
    share = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))
    mirrored = np.pad(image, ((0, 0), (size, size)), "symmetric")
    want = (1 - share) * mirrored[:, -size:] + share * mirrored[:, :size]
    assert_allclose(out[:20, 30:], want)
    assert_allclose(out.T[:30, 20:], np.array(want_below(image, m - 20)).T)
    whole = np.empty((m, n))
    rows.read(0, whole)
    assert_array_equal(whole, out)


def want_below(image, size):
    share = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, size + 1) / (size + 1))[:, None]
    mirrored = np.pad(image, ((size, size), (0, 0)), "symmetric")
    return (1 - share) * mirrored[-size:] + share * mirrored[:size]


@pytest.mark.parametrize("psf_shape", [(5, 7), (4, 2), (1, 6)])
def test_the_edge_taper_is_that_of_the_book(psf_shape, rng):
    y, psf = 100 * rng.random((20, 31)), 3 * rng.random(psf_shape)
    share = []
    for axis, n in enumerate(y.shape):
        power = np.abs(fft.fft(psf.sum(axis=1 - axis), n - 1)) ** 2
        lags = fft.ifft(power).real / power.mean()
        share.append(1 - np.append(lags, lags[0]))
    blurred = fft.ifft2(spectrum(psf / psf.sum(), y.shape) * fft.fft2(y)).real
    inside = np.outer(*share)
    taper = inside * y + (1 - inside) * blurred
    assert_allclose(taper[6:-6, 7:-7], y[6:-6, 7:-7])
    got = wiener(y, psf, 0.3, boundary="edge_taper")
    assert_allclose(got, wiener_of_the_book(taper, psf, 0.3), atol=1e-10)
    single = wiener(y.astype(np.float32), psf, 0.3, boundary="edge_taper")
    assert_allclose(single, got, atol=2e-5 * np.abs(got).max())
    guarded = inverse_filter(y, psf, 0.3, boundary="edge_taper", guarded=True)
    want = inverse_filter(taper, psf, 0.3, guarded=True)
    assert_allclose(guarded, want, atol=1e-10)


def test_an_edge_taper_wider_than_the_image_is_its_blur_at_the_frame(rng):
    y, psf = rng.random((5, 6)), rng.random((5, 6)) - 0.2
    taper = tapered(y, psf, np.dtype(float), 1)
    blurred = fft.ifft2(spectrum(psf / psf.sum(), y.shape) * fft.fft2(y)).real
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert_allclose(taper[edge], blurred[edge])
    low, high = np.minimum(y, blurred), np.maximum(y, blurred)
    assert ((taper > low - 1e-12) & (taper < high + 1e-12)).all()


def least_squares_of_the_frame(y, psf, penalty, balance):
    """The dense solution: a row for every pixel in the frame, and one for every penalty."""
    (m, n), (p, q) = y.shape, psf.shape
    torus = extended(y, psf.shape)[1]
    assert torus[0] >= m + p - 1
    assert torus[1] >= n + q - 1
    point = np.zeros(torus)
    point[0, 0] = 1
    spread = filtered(point, psf, "same", "circular")
    rough = np.sqrt(balance) * filtered(point, penalty, "same", "circular")
    columns = [
        np.append(np.roll(spread, at, (0, 1))[:m, :n], np.roll(rough, at, (0, 1)))
        for at in np.ndindex(torus)
    ]
    rows, wanted = np.array(columns).T, np.append(y, np.zeros(torus))
    return np.linalg.lstsq(rows, wanted, rcond=None)[0].reshape(torus)[:m, :n]


@pytest.mark.jit
@pytest.mark.parametrize("psf_shape", [(3, 3), (4, 2), (1, 6), (2, 5)])
def test_an_unknown_border_is_the_least_squares_of_the_frame(psf_shape, exact, rng):
    y, psf = 10 * rng.random((7, 9)), rng.random(psf_shape)
    laplacian = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    runs = [(wiener, 0.3, laplacian, 0.3, {})]
    runs.append((inverse_filter, 0.2, np.ones((1, 1)), 0.04, {"guarded": True}))
    for restore, number, penalty, balance, options in runs:
        want = least_squares_of_the_frame(y, psf, penalty, balance)
        for image, atol in ((y, 1e-8), (y.astype(np.float32), 2e-4)):
            got = restore(image, psf, number, boundary="unknown", **options)
            assert got.dtype == image.dtype
            assert_allclose(got, want, atol=atol * np.abs(want).max())


@pytest.mark.jit
@pytest.mark.parametrize("noise", [1, 5])
def test_an_unknown_border_is_as_good_as_the_inside(noise, rng):
    psf, scene = disk(15), photo()
    y = signal.fftconvolve(scene, psf, "same")[128:384, 128:384]
    y += noise * rng.standard_normal(y.shape)
    rim = np.ones(y.shape, bool)
    rim[15:-15, 15:-15] = False

    def errors(boundary):
        squares = np.square(wiener(y, psf, boundary=boundary) - scene[128:384, 128:384])
        return np.sqrt(squares[rim].mean()), np.sqrt(squares[~rim].mean())

    near, inside = errors("unknown")
    assert near < 2 * inside
    assert errors("circular")[0] > 4 * inside
    assert inside < 1.01 * errors("symmetric")[1]


@pytest.mark.parametrize("boundary", BORDERS)
def test_a_constant_image_stays_constant(boundary):
    for dtype, rtol in ((np.float32, 1e-5), (np.float64, 1e-12)):
        for balance in (0.01, "gcv"):
            image = np.full((24, 25), 7, dtype)
            got = wiener(image, gaussian(5, 1.0), balance, boundary=boundary)
            assert_allclose(got, 7, rtol=rtol)


@pytest.mark.jit
@pytest.mark.parametrize("boundary", ["circular", "symmetric"])
@pytest.mark.parametrize("psf", [disk(9), gaussian(15, 2.0)], ids=["disk", "gaussian"])
@pytest.mark.parametrize("name", ["camera", "coins", "moon", "brick"])
def test_gcv_is_nearly_the_best_balance(name, psf, boundary, rng):
    scene = photo(name)[20:300, 20:300]
    if boundary == "circular":
        truth = scene[12:268, 12:268]
        blurred = fft.ifft2(spectrum(psf, truth.shape) * fft.fft2(truth)).real
    else:
        truth, blurred = (
            scene[12:268, 12:268],
            signal.fftconvolve(scene, psf, "same")[12:268, 12:268],
        )
    for noise in (4, 10, 25):
        y = blurred + noise * rng.standard_normal(truth.shape)

        def error(balance, y=y):
            return np.square(wiener(y, psf, balance, boundary=boundary) - truth).mean()

        best = min(error(2.0**octave) for octave in np.arange(-14, 8, 0.5))
        assert error("gcv") < 1.1 * best
        assert error(gcv_balance(y, psf, boundary=boundary)) == error("gcv")


def test_gcv_of_binned_ratios_is_that_of_all_frequencies(rng):
    psf = gaussian(7, 1.2)
    scene = np.kron(rng.random((9, 11)), np.ones((7, 7))) * 100
    h = spectrum(psf, scene.shape)
    y = fft.ifft2(h * fft.fft2(scene)).real + rng.standard_normal(scene.shape)
    laplacian = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    ratio = np.abs(spectrum(laplacian, y.shape)) ** 2 / np.abs(h) ** 2
    octaves = np.arange(-20, 20, 0.05)
    left = [2.0**o * ratio / (1 + 2.0**o * ratio) for o in octaves]
    energy = np.abs(fft.fft2(y)) ** 2
    scores = np.array([(energy * r**2).sum() / r.sum() ** 2 for r in left])
    gained = np.array([((1 - r) ** 2 / np.abs(h) ** 2)[ratio > 0].sum() for r in left])
    scores *= 1 + 0.05 * scores * gained * np.sum(ratio > 0) / energy[ratio > 0].sum()
    found = gcv_balance(y, psf, boundary="circular")
    assert abs(np.log2(found) - octaves[np.argmin(scores)]) < 0.1
    for scale in (1e-12, 3.0, 1e12):
        scaled = gcv_balance(y, psf * scale, boundary="circular")
        assert_allclose(scaled / scale**2, found, rtol=0.1)
        assert_allclose(gcv_balance(y * scale, psf, boundary="circular"), found, rtol=1e-6)


@pytest.mark.parametrize("boundary", ["circular", "symmetric"])
def test_gcv_sees_a_pattern_between_the_columns_of_its_sample(boundary, monkeypatch):
    monkeypatch.setattr(pair_transforms, "SAMPLED", 8)
    monkeypatch.setattr(cross_validation, "_COLUMNS", 10)
    y = np.tile(np.cos(2 * np.pi * 15 / 96 * np.arange(96)), (64, 1))
    assert gcv_balance(y, gaussian(7, 1.2), boundary=boundary) > 0
    assert gcv_balance(np.full_like(y, 7), gaussian(7, 1.2), boundary=boundary) == 0


@pytest.mark.parametrize("shape", [(80, 61), (61, 80)])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("boundary", ["symmetric", "edge_taper"])
def test_gcv_sees_an_image_that_fades_in_the_margins(boundary, small, shape, rng, monkeypatch):
    """Whose transform it never takes: it convolves that of the image."""
    if not small:
        monkeypatch.setattr(pair_transforms, "SMALL_BYTES", 0)
        monkeypatch.setattr(image_transforms, "JOB_BYTES", 9000)
    psf, y = gaussian(7, 1.2), 50 + signal.convolve(rng.random(shape), np.ones((5, 5)), "same")
    y += 0.1 * rng.standard_normal(shape)
    if boundary == "symmetric":
        rows, frame = extended(y, psf.shape)
        framed = np.empty(frame)
        rows.read(0, framed)
    else:
        framed = tapered(y, psf, np.dtype(float), 1)
    # A sine to the fourth, with its zeros in the middle of the margins.
    sines = [
        np.sin(np.pi * (np.arange(n) - (n + k - 1) / 2) / n)
        for n, k in zip(framed.shape, shape, strict=True)
    ]
    framed = (framed - framed.mean()) * np.multiply.outer(*sines) ** 4
    h = spectrum(psf, framed.shape)
    penalty = spectrum(np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]]), framed.shape)
    ratio, energy = np.abs(penalty) ** 2 / np.abs(h) ** 2, np.abs(fft.fft2(framed)) ** 2
    octaves = np.arange(-20, 20, 0.05)
    left = [2.0**o * ratio / (1 + 2.0**o * ratio) for o in octaves]
    energy += 1e-5 * energy.sum() / energy.size
    scores = np.array([(energy * r**2).sum() / r.sum() ** 2 for r in left])
    gained = np.array([((1 - r) ** 2 / np.abs(h) ** 2)[ratio > 0].sum() for r in left])
    scores *= 1 + 0.05 * scores * gained * np.sum(ratio > 0) / energy[ratio > 0].sum()
    want = octaves[np.argmin(scores)]
    assert -15 < want < 15
    assert abs(np.log2(gcv_balance(y, psf, boundary=boundary)) - want) < 0.15
    monkeypatch.setattr(pair_transforms, "SAMPLED", 8)
    monkeypatch.setattr(cross_validation, "_COLUMNS", 15)
    assert abs(np.log2(gcv_balance(y, psf, boundary=boundary)) - want) < 1


@pytest.mark.jit
@pytest.mark.parametrize("name", ["camera", "moon"])
@pytest.mark.parametrize("sigma", [3.0, 5.0, 8.0])
def test_gcv_survives_rounding_under_a_wide_blur(name, sigma):
    """What rounding leaves is not white then, and plain cross-validation restores noise alone."""
    truth, psf = photo(name)[:256, :256], gaussian(2 * int(4.3 * sigma) + 1, sigma)
    blurred = np.rint(fft.ifft2(spectrum(psf, truth.shape) * fft.fft2(truth)).real)

    def error(balance, image=blurred):
        return np.square(wiener(image, psf, balance, boundary="circular") - truth).mean()

    assert error("gcv") < 3 * min(error(2.0**octave) for octave in range(-30, 8, 2))
    assert error("gcv", blurred.astype(np.uint8)) == error("gcv")


def test_images_of_a_pixel(rng):
    for shape in ((1, 1), (1, 9), (2, 3)):
        y = rng.random(shape)
        for boundary in BORDERS:
            guarded = boundary == "unknown"
            assert_allclose(wiener(y, [[2.0]], 0, boundary=boundary), y / 2)
            assert np.isfinite(wiener(y, [[2.0]], boundary=boundary)).all()
            got = inverse_filter(y, [[2.0]], 0, boundary=boundary, guarded=guarded)
            assert_allclose(got, y / 2)


@pytest.mark.jit
def test_gcv_stays_sane_without_noise():
    psf, scene = gaussian(15, 2.0), photo()[20:300, 20:300]
    y, truth = signal.fftconvolve(scene, psf, "same")[12:268, 12:268], scene[12:268, 12:268]
    assert np.square(wiener(y, psf) - truth).mean() < np.square(y - truth).mean()


def seeds_gaussian(radius, shape):
    """The seed text's Gaussian, which is as large as the image."""
    m, n = shape
    y, x = np.mgrid[-((m - 1) // 2) : m // 2 + 1, -((n - 1) // 2) : n // 2 + 1]
    psf = np.exp(-(x**2 + y**2) / radius)
    return psf / psf.sum()


@pytest.mark.jit
@pytest.mark.parametrize("kind", ["gaussian", "motion"])
def test_round_trip_of_the_seed_text(kind):
    scene = photo()
    psf = seeds_gaussian(1000.0, scene.shape) if kind == "gaussian" else np.full((1, 30), 1 / 30)
    kernel = psf.copy()
    kernel[(psf.shape[0] - 1) // 2, (psf.shape[1] - 1) // 2] += 1e-5
    blurred = fft.ifft2(spectrum(kernel, scene.shape) * fft.fft2(scene)).real
    restored = inverse_filter(blurred, psf, 1e-5)
    assert np.abs(restored - scene).max() < 1e-6 * scene.max()
    # What the text foresees: the same after rounding to 8 bits is no image.
    rounded = np.rint(blurred)
    failed = np.square(inverse_filter(rounded, psf, 1e-5) - scene).mean()
    better = [wiener(rounded, psf, boundary="circular")]
    better.append(richardson_lucy(rounded, psf, 20, boundary="circular"))
    for answer in better:
        assert np.square(answer - scene).mean() < np.square(rounded - scene).mean() < failed / 100


@pytest.mark.parametrize("boundary", ["circular", "symmetric"])
@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_inverse_filter_equals_its_formulas(epsilon, boundary, rng):
    y, psf = rng.random((20, 21)), rng.random((4, 3))
    psf[1, 1] += 8
    h, spectra = spectrum(psf, y.shape), fft.fft2(y)
    plain = inverse_filter(y, psf, epsilon, boundary=boundary)
    guarded = inverse_filter(y, psf, epsilon, boundary=boundary, guarded=True)
    inner = np.s_[:] if boundary == "circular" else np.s_[8:-8, 8:-8]
    rtol = 1e-10 if boundary == "circular" else 0.05
    assert_allclose(plain[inner], fft.ifft2(spectra / (h + epsilon)).real[inner], rtol, rtol)
    want = fft.ifft2(h.conj() * spectra / (np.abs(h) ** 2 + epsilon**2)).real
    assert_allclose(guarded[inner], want[inner], rtol, rtol)


def test_an_empty_frequency_is_left_empty():
    image = np.outer([1.0, -1] * 4, [1.0, -1] * 4) + 5
    got = inverse_filter(image, [[0.5, 0.5]], 0)
    assert_allclose(got, 5)


@pytest.mark.jit
@pytest.mark.parametrize(("noise", "most"), [(2.0, 1.06), (8.0, 1.02)])
@pytest.mark.parametrize("psf", [disk(11), np.eye(9) / 9], ids=["disk", "motion"])
def test_iterations_end_where_noise_hides_what_they_change(noise, most, psf, rng, monkeypatch):
    truth = photo()[:320, :320]
    blurred = signal.convolve2d(truth, psf, mode="valid")
    given, balance = blurred + noise * rng.standard_normal(blurred.shape), 1e-3 * noise
    top, left = ((n - 1) // 2 for n in psf.shape)
    inside = np.s_[top : top + given.shape[0], left : left + given.shape[1]]
    steps, turn = [], unknown_border._Unknown.turn

    def counted(self, share):
        steps.append(share)
        return turn(self, share)

    monkeypatch.setattr(unknown_border._Unknown, "turn", counted)

    def error():
        steps.clear()
        restored = wiener(given, psf, balance, boundary="unknown")
        return float(np.sqrt(np.mean((restored - truth[inside]) ** 2))), len(steps)

    found, taken = error()
    monkeypatch.setattr(unknown_border, "HIDDEN", 0)
    _, to_tolerance = error()
    assert taken < to_tolerance
    monkeypatch.setattr(unknown_border, "TOLERANCE", 1e-4)
    best, all_steps = error()
    assert found <= most * best
    assert 2 * taken < all_steps


@pytest.mark.parametrize("boundary", ["symmetric", "edge_taper", "unknown"])
def test_channels_clip_and_callback(boundary, rng, monkeypatch):
    monkeypatch.setattr(unknown_border, "MAX_ITERATIONS", 3)
    y, psf = rng.random((3, 20, 21)), rng.random((3, 3, 3))
    done = []
    got = wiener(
        np.moveaxis(y, 0, -1),
        np.moveaxis(psf, 0, -1),
        channel_axis=2,
        boundary=boundary,
        clip=(0, None),
        callback=lambda *counts: done.append(counts),
    )
    for i in range(3):
        assert_array_equal(got[..., i], wiener(y[i], psf[i], boundary=boundary).clip(0))
    assert done == sorted(done)
    assert done[-1][0] == done[-1][1]
    assert len(done) >= 9
    for i, plane in enumerate(inverse_filter(y, psf[0], 0.1, channel_axis=0)):
        assert_array_equal(plane, inverse_filter(y[i], psf[0], 0.1))

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    for restore, options in ((wiener, {}), (inverse_filter, {"guarded": True})):
        with pytest.raises(KeyboardInterrupt):
            restore(y[0], psf[0], boundary=boundary, callback=stop, **options)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("boundary", BORDERS)
def test_workers_and_layouts_change_nothing(boundary, small, rng, monkeypatch):
    monkeypatch.setattr(unknown_border, "MAX_ITERATIONS", 2)
    monkeypatch.setattr(image_transforms, "JOB_BYTES", 2000)
    monkeypatch.setattr(cross_validation, "_COLUMNS", 10)
    if not small:
        monkeypatch.setattr(pair_transforms, "SMALL_BYTES", 0)
    y, psf = rng.integers(0, 255, (40, 51)).astype(float), rng.random((3, 4))
    want = wiener(y, psf, boundary=boundary, workers=1)
    frozen = y.copy()
    frozen.flags.writeable = False
    for image in (frozen, np.asfortranarray(y), y.astype(np.uint8), y.astype(">f8")):
        assert_array_equal(wiener(image, psf, boundary=boundary, workers=3), want)


@pytest.mark.parametrize("boundary", BORDERS)
def test_large_frames_are_filtered_as_small_ones(boundary, rng, monkeypatch):
    y, psf = rng.random((31, 22)), rng.random((4, 3))
    want = wiener(y, psf, boundary=boundary)
    plain = {} if boundary != "unknown" else {"guarded": True}
    inverse = inverse_filter(y, psf, 0.5, boundary=boundary, **plain)
    monkeypatch.setattr(pair_transforms, "SMALL_BYTES", 0)
    assert_allclose(wiener(y, psf, boundary=boundary), want, atol=1e-10)
    got = inverse_filter(y, psf, 0.5, boundary=boundary, **plain)
    assert_allclose(got, inverse, atol=1e-10)


@pytest.mark.jit
@pytest.mark.parametrize("psf", [gaussian(15, 2.0), disk(15)], ids=["gaussian", "disk"])
def test_seams_are_small_beside_the_error(psf, rng, tmp_path):
    scene = photo()
    blurred = signal.fftconvolve(scene, psf, "same") + 2 * rng.standard_normal(scene.shape)
    blurred = np.maximum(blurred, 0)
    source = np.memmap(tmp_path / "image", np.float64, "w+", shape=scene.shape)
    source[:] = blurred
    out = np.memmap(tmp_path / "out", np.float64, "w+", shape=scene.shape)
    runs = [(richardson_lucy, {"num_iter": 30, "acceleration": False, "noise": None})]
    if (psf > 0).all():  # what a PSF takes away altogether rings further than any halo
        balance = gcv_balance(blurred, psf)
        runs.append((wiener, {"balance": balance, "boundary": "symmetric"}))
    for restore, options in runs:
        whole = restore(blurred, psf, **options)
        error = np.sqrt(np.square(whole - scene).mean())
        tiled = restore_tiled(restore, source, psf, out=out, tile_shape=(200, 180), **options)
        assert tiled is out
        seam = out - whole
        lines = np.r_[seam[196:204].ravel(), seam[:, 176:184].ravel()]
        assert np.sqrt(np.square(lines).mean()) < 0.05 * error
        none = restore_tiled(restore, source, psf, tile_shape=(200, 180), halo=(0, 0), **options)
        lines_without = (none - whole)[196:204]
        assert np.square(lines).mean() < 0.01 * np.square(lines_without).mean()


@pytest.mark.jit
def test_a_halo_as_large_as_the_image_leaves_no_seam(rng):
    y, psf = rng.random((20, 23)).astype(np.float32), rng.random((3, 3))
    done = []
    got = restore_tiled(
        wiener,
        y,
        psf,
        balance=0.1,
        tile_shape=(8, 9),
        halo=(20, 23),
        callback=lambda *counts: done.append(counts),
    )
    assert got.dtype == np.float32
    assert_array_equal(got, wiener(y, psf, 0.1))
    assert done == [(i, 9) for i in range(1, 10)]


def test_tiles_of_what_is_read_by_slices(rng):
    class Dataset:
        def __init__(self, array):
            self.array, self.shape, self.dtype = array, array.shape, array.dtype
            self.largest = 0

        def __getitem__(self, key):
            found = self.array[key]
            self.largest = max(self.largest, found.size)
            return found

    y, psf = rng.random((30, 40)), rng.random((3, 3))
    dataset = Dataset(y)
    options = {"tile_shape": (10, 10), "halo": (2, 3), "balance": 0.1, "boundary": "circular"}
    assert_array_equal(
        restore_tiled(wiener, dataset, psf, **options), restore_tiled(wiener, y, psf, **options)
    )
    assert dataset.largest <= 14 * 16


IMAGE, PSF = np.ones((8, 9)), np.ones((3, 3)) / 9
NAN = IMAGE.copy()
NAN[2, 3] = np.nan

CASES = {
    "nan": ({"image": NAN}, ValueError, r"image must be finite, got nan at index \(2, 3\)"),
    "complex": ({"image": 1j * IMAGE}, TypeError, r"image must hold real numbers"),
    "colours": ({"image": np.ones((8, 9, 3))}, ValueError, r"pass channel_axis="),
    "large psf": ({"psf": np.ones((9, 3))}, ValueError, r"psf must not be larger than the image"),
    "dark psf": ({"psf": 0 * PSF}, ValueError, r"psf must not be zero everywhere"),
    "nan psf": ({"psf": np.nan * PSF}, ValueError, r"psf must be finite, got nan"),
    "psf of other channels": (
        {"image": np.ones((3, 8, 9)), "psf": np.ones((2, 3, 3)), "channel_axis": 0},
        ValueError,
        r"psf must have as many channels as image, .* got 2 and 3",
    ),
    "unknown border": (
        {"boundary": "zero"},
        ValueError,
        r"boundary must be one of .*'circular', 'symmetric', 'edge_taper', 'unknown', got 'zero'",
    ),
    "reflect": ({"boundary": "reflect"}, ValueError, r"say 'symmetric'"),
    "nan and an unknown border": (
        {"image": NAN, "boundary": "unknown", "guarded": True},
        ValueError,
        r"image must be finite, got nan at index \(2, 3\)",
    ),
    "nan and an edge taper": (
        {"image": NAN, "boundary": "edge_taper"},
        ValueError,
        r"image must be finite, got nan at index \(2, 3\)",
    ),
    "an edge taper by nothing": (
        {"psf": np.array([[1.0, -2.0, 1.0]]), "boundary": "edge_taper"},
        ValueError,
        r"psf must not sum to 0 with boundary='edge_taper', .* use 'symmetric' or 'unknown'",
    ),
    "clip": ({"clip": (2, 1)}, ValueError, r"clip must be \(low, high\)"),
    "no workers": ({"workers": 0}, ValueError, r"workers must be a positive integer"),
}


@pytest.mark.parametrize("function", [wiener, inverse_filter])
@pytest.mark.parametrize("case", CASES)
def test_refusals(case, function):
    changes, error, message = CASES[case]
    arguments = {"image": IMAGE, "psf": PSF, **changes}
    if function is wiener:
        arguments.pop("guarded", None)
    with pytest.raises(error, match=message):
        function(**arguments)


def test_refusals_of_one_function():
    with pytest.raises(ValueError, match="balance must be one of 'gcv', got 'lcurve'"):
        wiener(IMAGE, PSF, "lcurve")
    with pytest.raises(ValueError, match="balance must be finite and at least 0, got -1"):
        wiener(IMAGE, PSF, -1)
    with pytest.raises(ValueError, match="epsilon must be finite and at least 0, got -1"):
        inverse_filter(IMAGE, PSF, -1)
    with pytest.raises(ValueError, match=r"no plain division; pass guarded=True, or take another"):
        inverse_filter(IMAGE, PSF, boundary="unknown")
    with pytest.raises(ValueError, match=r"psf must not be larger than a tile, got .* \(2, 9\)"):
        restore_tiled(wiener, IMAGE, PSF, tile_shape=(2, 20))
    with pytest.raises(ValueError, match=r"tile_shape must be two positive integers .* got 5"):
        restore_tiled(wiener, IMAGE, PSF, tile_shape=5)
    with pytest.raises(
        ValueError, match=r"halo must be two integers \(rows, cols\) from 0, got \(-1, 2\)"
    ):
        restore_tiled(wiener, IMAGE, PSF, halo=(-1, 2))
    with pytest.raises(ValueError, match="out must not overlap image"):
        restore_tiled(wiener, IMAGE, PSF, out=IMAGE)
