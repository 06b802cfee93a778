"""Division of spectra against its definition by numpy.fft."""

import math

import naive
import numpy as np
import pytest
from calls import fit_spectral
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import windows
from skimage import data

from fastkernel import SingularFitError, circshift
from fastkernel._images.rows import rows_of
from fastkernel._machine import image_transforms
from fastkernel.estimation.methods import fft as spectral
from fastkernel.estimation.methods.fft_noise import noise_power

BLUR = np.array([[0.0, 0.1, 0.0], [0.2, 0.4, 0.2], [0.0, 0.0, 0.1]])
SHAPES = [(3, 3), (1, 1), (1, 4), (4, 1), (2, 5), (6, 4)]


@pytest.fixture(autouse=True, params=["one job", "many jobs"])
def jobs(request, monkeypatch):
    if request.param == "many jobs":
        monkeypatch.setattr(image_transforms, "JOB_BYTES", 1 << 10)


def centred(taps):
    """Taps whose origin stood at (0, 0), with that at the centre tap of "same"."""
    return np.roll(taps, [(n - 1) // 2 for n in taps.shape], (0, 1))


def division(pairs, epsilon=0.0):
    """The kernel of all taps, origin at (0, 0)."""
    x = np.array([np.fft.rfft2(source) for source, _ in pairs])
    y = np.array([np.fft.rfft2(result) for _, result in pairs])
    power = (np.abs(x) ** 2).sum(0) + epsilon
    return np.fft.irfft2((x.conj() * y).sum(0) / power, pairs[0][0].shape)


def circular_pair(rng, kernel=BLUR, size=(20, 23)):
    image = rng.random(size)
    return image, naive.convolve(image, kernel, "same", "circular")


@pytest.mark.parametrize("size", [(16, 16), (17, 12), (12, 19), (13, 13), (1, 30), (30, 1), (2, 2)])
def test_the_plain_recipe(size, rng):
    source, result = rng.random(size), rng.random(size)
    want = np.fft.irfft2(np.fft.rfft2(result) / np.fft.rfft2(source), size)
    want = centred(want)
    fit = fit_spectral([(source, result)], None, epsilon=0.0)
    assert_allclose(fit.kernel, want, rtol=0, atol=1e-12 * np.abs(want).max())
    scaled = fit_spectral([(source, result)], None, epsilon=0.0, normalize="max").kernel
    assert_allclose(scaled, want / want.max(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(20, 23), (21, 16)])
def test_a_circular_pair_gives_its_kernel_back(shape, size, rng):
    kernel = rng.standard_normal(shape)
    pair = circular_pair(rng, kernel, size)
    fit = fit_spectral([pair], shape, epsilon=0.0)
    assert_allclose(fit.kernel, kernel, rtol=0, atol=1e-11)
    assert fit.residual_rms < 1e-11
    assert fit.n_pixels == math.prod(n - k + 1 for n, k in zip(size, shape, strict=True))
    assert (fit.method, fit.solver, fit.rank) == ("fft", "division", math.prod(shape))
    assert fit.equations is None
    assert np.isnan(fit.standard_errors).all()
    assert_allclose(fit.residual(*pair), 0, atol=1e-11)


@pytest.mark.parametrize("epsilon", [0.0, 3.0])
@pytest.mark.parametrize("n_pairs", [1, 2, 3])
def test_guarded_division_of_several_pairs(epsilon, n_pairs, rng):
    pairs = [(rng.random((14, 15)), rng.random((14, 15))) for _ in range(n_pairs)]
    want = division(pairs, epsilon)
    for shape, shift in [(None, (6, 7)), ((4, 5), (1, 2))]:
        fit = fit_spectral(pairs, shape, epsilon=epsilon)
        rows, cols = shape or (14, 15)
        assert_allclose(fit.kernel, circshift(want, shift)[:rows, :cols], rtol=0, atol=1e-12)
    power = sum(np.abs(np.fft.fft2(source)) ** 2 for source, _ in pairs) + epsilon
    assert fit.condition_number == pytest.approx(power.max() / power.min(), rel=1e-9)
    left = [naive.convolve(source, fit.kernel) for source, _ in pairs]
    rest = [
        naive.inside(result, (4, 5)) - part for (_, result), part in zip(pairs, left, strict=True)
    ]
    assert fit.residual_rms == pytest.approx(np.sqrt(np.mean(np.square(rest))), rel=1e-12)
    assert fit.n_pixels == n_pairs * 11 * 11


@pytest.mark.parametrize("size", [(12, 15), (11, 16)])
def test_residual_of_a_kernel_of_all_taps_is_the_periodic_one(size, rng):
    pairs = [(rng.random(size), rng.random(size)) for _ in range(2)]
    kernel = division(pairs, 0.5)
    spectrum = np.fft.fft2(kernel)
    rest = [y - np.fft.ifft2(np.fft.fft2(x) * spectrum).real for x, y in pairs]
    fit = fit_spectral(pairs, None, epsilon=0.5)
    assert fit.residual_rms == pytest.approx(np.sqrt(np.mean(np.square(rest))), rel=1e-10)
    assert fit.n_pixels == 2 * math.prod(size)


def test_the_centre_of_all_taps_is_that_of_same(rng):
    for size in [(12, 15), (11, 16)]:
        image = rng.random(size)
        fit = fit_spectral([(image, image)], None, epsilon=0.0)
        want = centred(np.eye(1, math.prod(size)).reshape(size))
        assert_allclose(fit.kernel, want, rtol=0, atol=1e-12)


def test_taper(rng):
    pair = rng.random((20, 31)) + 3, rng.random((20, 31))
    window = np.outer(*(faded(n, 0.2) for n in (20, 31)))
    tapered = [image.mean() + window * (image - image.mean()) for image in pair]
    want = centred(division([tapered], 0.1))
    fit = fit_spectral([pair], None, epsilon=0.1, taper=0.2)
    assert_allclose(fit.kernel, want, rtol=0, atol=1e-12)
    plain = fit_spectral([pair], None, epsilon=0.1).kernel
    assert_array_equal(fit_spectral([pair], None, epsilon=0.1, taper=0).kernel, plain)


def faded(length, taper):
    """The cosine taper at the middles of pixels."""
    place = (np.arange(length) + 0.5) / length
    edge = np.minimum(np.minimum(place, 1 - place) / taper, 1)
    return 0.5 - 0.5 * np.cos(np.pi * edge)


def test_taper_is_a_tukey_window():
    fine = windows.tukey(2 * 40 + 1, 0.4)[1::2]
    assert_allclose(spectral._taper_window(40, 0.2), fine, rtol=0, atol=1e-15)
    assert (spectral._taper_window(1, 0.5) == 1).all()


def photo_pair(kernel):
    image = data.camera()[:240, 100:400].astype(float)
    return image, naive.convolve(image, kernel, "same", "replicate")


def arms(kernel):
    """Pixels of the cross through the centre, away from the kernel."""
    row, col = ((n - 1) // 2 for n in kernel.shape)
    lines = kernel[row], kernel[:, col]
    return np.concatenate([np.concatenate([line[:-20], line[20:]]) for line in map(sides, lines)])


def sides(line):
    middle = (len(line) - 1) // 2
    return np.concatenate([line[: middle - 20], line[middle + 21 :]])


@pytest.mark.jit
@pytest.mark.parametrize("epsilon", [0.0, None])
def test_taper_weakens_the_cross_of_a_photograph(epsilon):
    pair = photo_pair(BLUR)
    cross, error = {}, {}
    for taper in (None, 0.1):
        whole = fit_spectral([pair], None, epsilon=epsilon, taper=taper).kernel
        cross[taper] = np.sqrt(np.mean(arms(whole) ** 2))
        taps = fit_spectral([pair], 3, epsilon=epsilon, taper=taper).kernel
        error[taper] = np.abs(taps - BLUR).max()
    assert cross[0.1] < cross[None] / 10
    assert error[0.1] < error[None] / 10


@pytest.mark.jit
def test_noise_power_is_found_whatever_the_kernel(rng):
    """White noise of deviation 2 has power 4 at every frequency, times the number of pixels."""
    image = data.camera()[:200, :240].astype(float)
    for kernel in (BLUR, np.ones((7, 7)) / 49, np.ones((1, 1))):
        result = naive.convolve(image, kernel, "same", "circular")
        result += 2 * rng.standard_normal(result.shape)
        spectra = [
            image_transforms.row_spectra(rows_of(x, x.shape), x.shape, np.dtype(float), 1)
            for x in (image, result)
        ]
        found = noise_power(*spectra, 0.0, 1, None)[0]
        assert found == pytest.approx(4 * image.size, rel=0.15)


@pytest.mark.jit
@pytest.mark.parametrize("deviation", [0.3, 2.0])
def test_the_guard_from_the_noise_is_better_than_none(deviation, rng):
    column = np.exp(-((np.arange(9.0) - 4) ** 2) / (2 * 1.5**2))
    kernel = np.outer(column, column) / column.sum() ** 2
    image = data.camera()[:300, :400].astype(float)
    result = naive.convolve(image, kernel, "same", "circular")
    result += deviation * rng.standard_normal(result.shape)
    error = {
        epsilon: np.linalg.norm(fit_spectral([(image, result)], 9, epsilon=epsilon).kernel - kernel)
        for epsilon in (None, 0.0, 1e14)
    }
    assert error[None] < 0.9 * min(error[0.0], error[1e14])


@pytest.mark.parametrize("size", [(40, 40), (1, 40), (2, 40), (40, 1), (15, 40)])
def test_the_guard_from_the_noise_leaves_a_clean_pair_alone(size, rng):
    kernel = BLUR[: min(3, size[0]), : min(3, size[1])] + 0.1
    image = rng.standard_normal(size)
    pair = image, naive.convolve(image, kernel, "same", "circular")
    assert_allclose(fit_spectral([pair], kernel.shape).kernel, kernel, rtol=0, atol=2e-3)


def test_missing_frequencies_are_guarded(rng):
    """A source whose every other column is empty in the spectrum, and a blur of it."""
    half = rng.random((16, 8))
    image = np.concatenate([half, half], axis=1)
    result = naive.convolve(image, BLUR, "same", "circular")
    fit = fit_spectral([(image, result)], None, epsilon=1e-9)
    repeated = division([(half, result[:, :8])])
    want = centred(np.concatenate([repeated, repeated], axis=1) / 2)
    assert_allclose(fit.kernel, want, rtol=0, atol=1e-7)


@pytest.mark.parametrize("n_pairs", [1, 2])
@pytest.mark.parametrize("shape", [None, (3, 4)])
def test_workers_do_not_change_a_bit(n_pairs, shape, rng):
    pairs = [(rng.random((60, 70)), rng.random((60, 70))) for _ in range(n_pairs)]
    one, *others = (fit_spectral(pairs, shape, taper=0.1, workers=n) for n in (1, 2, 3))
    for other in others:
        assert_array_equal(other.kernel, one.kernel)
        assert other.residual_rms == one.residual_rms
        assert other.condition_number == one.condition_number


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda image: image.astype(np.float32),
        lambda image: image.astype(np.uint8),
        lambda image: image.astype(">i4"),
        lambda image: np.repeat(image, 2, axis=1)[:, ::2],
    ],
    ids=["fortran", "float32", "uint8", "swapped", "strided"],
)
def test_any_layout_and_dtype_is_read_and_left_alone(change, rng):
    pair = tuple(rng.integers(0, 200, (12, 14)).astype(float) for _ in range(2))
    want = fit_spectral([pair], 3)
    changed = tuple(change(image) for image in pair)
    for image in changed:
        image.flags.writeable = False
    found = fit_spectral([changed], 3)
    assert_array_equal(found.kernel, want.kernel)
    assert found.kernel.dtype == np.float64
    for image, original in zip(changed, pair, strict=True):
        assert_array_equal(image, original)


def test_normalize_and_cutoff(rng):
    pair = circular_pair(rng, 5 * BLUR)

    def taps(**options):
        return fit_spectral([pair], 3, epsilon=0.0, **options).kernel

    assert_allclose(taps(normalize="max"), BLUR / 0.4, rtol=0, atol=1e-11)
    assert_allclose(taps(normalize="sum"), BLUR, rtol=0, atol=1e-11)
    want = np.where(BLUR < 0.3 * 0.4, 0, 5 * BLUR)
    assert_allclose(taps(cutoff=0.3), want, rtol=0, atol=1e-10)
    # Scaled by the sum of all taps, not of those that are left.
    assert_allclose(taps(cutoff=0.3, normalize="sum"), want / 5, rtol=0, atol=1e-11)
    assert (taps(cutoff=1.0, normalize="max") == np.where(BLUR == 0.4, 1.0, 0.0)).all()
    assert (taps(cutoff=0.3) == 0).sum() == 6
    scaled = fit_spectral([pair], 3, epsilon=0.0, cutoff=0.3, normalize="max")
    plain = fit_spectral([pair], 3, epsilon=0.0, cutoff=0.3)
    left = naive.inside(pair[1], (3, 3)) - naive.convolve(pair[0], want)
    assert scaled.residual_rms == plain.residual_rms
    assert plain.residual_rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": -1.0}, ValueError, "epsilon must be finite and at least 0, got -1.0"),
        ({"epsilon": "1"}, TypeError, "epsilon must be a number, got '1'"),
        ({"taper": 0.6}, ValueError, "taper must be from 0 to 0.5, got 0.6"),
        ({"taper": math.nan}, ValueError, "taper must be from 0 to 0.5, got nan"),
        ({"taper": True}, TypeError, "taper must be a number or None, got True"),
        ({"cutoff": -0.1}, ValueError, "cutoff must be from 0 to 1, got -0.1"),
        ({"cutoff": "all"}, TypeError, "cutoff must be a number or None, got 'all'"),
        ({"normalize": "peak"}, ValueError, "normalize must be one of 'max', 'sum', got 'peak'"),
        ({"workers": 0}, ValueError, "workers must be a positive integer"),
        ({"kernel_shape": (0, 3)}, ValueError, "kernel_shape must be two positive integers"),
        ({"kernel_shape": (3, 24)}, ValueError, r"kernel_shape must fit inside source: got \(3, 2"),
    ],
)
def test_refusals_of_options(options, error, message, rng):
    options = {"kernel_shape": 3, **options}
    with pytest.raises(error, match=message):
        fit_spectral([circular_pair(rng)], **options)


def test_refusals_of_shapes(rng):
    image = rng.random((20, 23))
    with pytest.raises(ValueError, match=r'"same" result, got \(18, 21\) and \(20, 23\)'):
        fit_spectral([(image, image[1:-1, 1:-1])], 3)
    other = rng.random((20, 22))
    with pytest.raises(ValueError, match=r"result\[1\] must have the shape of source\[1\]"):
        fit_spectral([(image, image), (image, other)], 3)
    with pytest.raises(ValueError, match=r"one shape.*got \(20, 23\) and \(20, 22\); crop"):
        fit_spectral([(image, image), (other, other)], 3)


@pytest.mark.parametrize("taper", [None, 0.1])
@pytest.mark.parametrize("pixel", [np.nan, np.inf, -np.inf])
def test_refuses_pixels_that_are_not_finite(pixel, taper, rng):
    pair = circular_pair(rng)
    pair[1][4, 5] = pixel
    message = rf"result must be finite, got {pixel} at index \(4, 5\)"
    with pytest.raises(ValueError, match=message):
        fit_spectral([pair], 3, taper=taper)
    with pytest.raises(ValueError, match=r"source\[1\] must be finite"):
        fit_spectral([circular_pair(rng), pair[::-1]], 3, taper=taper)


@pytest.mark.parametrize("size", [1e200, 1e153])
def test_refuses_sums_that_overflow(size, rng):
    image = size * (1 + rng.random((20, 23)))
    with pytest.raises(ValueError, match="products overflow float64"):
        fit_spectral([(image, image)], 3)


@pytest.mark.parametrize("epsilon", [None, 0.0, 1.0])
@pytest.mark.parametrize("taper", [None, 0.2])
@pytest.mark.parametrize(("level", "word"), [(0.0, "zero"), (0.1, "flat"), (255.0, "flat")])
def test_refuses_a_flat_source(epsilon, taper, level, word, rng):
    pair = np.full((20, 23), level), rng.random((20, 23))
    with pytest.raises(SingularFitError, match=f"the source is {word}. What helps"):
        fit_spectral([pair], 3, epsilon=epsilon, taper=taper)


def test_refuses_to_divide_by_empty_frequencies(rng):
    """Two equal halves: whole numbers leave exact zeros in every other column."""
    half = rng.integers(0, 9, (16, 8)).astype(float)
    image = np.concatenate([half, half], axis=1)
    message = "empty at 64 of the 144 frequencies.*epsilon=0.*epsilon: a positive number, or None"
    with pytest.raises(SingularFitError, match=message):
        fit_spectral([(image, image)], 3, epsilon=0.0)
    assert np.isfinite(fit_spectral([(image, image)], 3).kernel).all()


def test_refuses_to_scale_by_nothing(rng):
    image, _ = circular_pair(rng)
    with pytest.raises(ValueError, match="need a positive tap, the largest is -1; use"):
        fit_spectral([(image, -image)], 1, epsilon=0.0, normalize="max")
    with pytest.raises(ValueError, match="need a positive tap"):
        fit_spectral([(image, -image)], 1, epsilon=0.0, cutoff=0.5)
    difference = np.array([[1.0, -1.0]])
    pair = circular_pair(rng, difference)
    with pytest.raises(ValueError, match="do not cancel, they sum to 0; use"):
        fit_spectral([(image, 0 * image)], 1, epsilon=0.0, normalize="sum")
    assert_allclose(
        fit_spectral([pair], (1, 2), epsilon=0.0, normalize="max").kernel, difference, atol=1e-11
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("n_pairs", [1, 3])
def test_progress_goes_to_its_end_and_can_stop(workers, n_pairs, rng):
    pairs, calls = [circular_pair(rng) for _ in range(n_pairs)], []
    fit_spectral(
        pairs, 3, workers=workers, callback=lambda done, total: calls.append((done, total))
    )
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == (100 * (4 * n_pairs + 1),) * 2

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_spectral(pairs, 3, workers=workers, callback=stop)


def stamp(n, sigma):
    line = np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * sigma**2))
    return np.outer(line, line) / line.sum() ** 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "narrow", "wide"), [(51, 3, 5), (51, 2, 3), (63, 3, 8), (101, 3, 5)])
def test_stamps_without_noise_give_the_gaussian_between_them(n, narrow, wide, dtype):
    """By the semigroup of Gaussians; the cut edge of a stamp is not the source's to explain."""
    pair = stamp(n, narrow).astype(dtype), stamp(n, wide).astype(dtype)
    want = stamp(n, math.sqrt(wide**2 - narrow**2))
    found = fit_spectral([pair], n).kernel
    assert np.abs(found - want).max() < 0.03 * want.max()
