"""Transforms of whole images against SciPy's, however they are cut into jobs."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import fft

from fastkernel._images.rows import rows_of
from fastkernel._machine import image_transforms, pair_transforms
from fastkernel._machine.image_transforms import filter_spectra, forward, inverse

SHAPES = [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (3, 5), (8, 8), (12, 31), (31, 12), (37, 41)]
EPS = {np.float32: 2e-6, np.float64: 4e-15}


@pytest.fixture(params=["one job", "many jobs"])
def jobs(request, monkeypatch):
    if request.param == "many jobs":
        monkeypatch.setattr(image_transforms, "JOB_BYTES", 1 << 9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (127, 96), (64, 101)])
def test_there_and_back(shape, dtype, jobs, rng):
    image = (rng.random(shape) + 1).astype(dtype)
    want = fft.rfft2(image.astype(float))
    found = forward(image, 1)
    assert found.dtype == np.result_type(dtype, np.complex64)
    assert_allclose(found, want, rtol=0, atol=EPS[dtype] * np.abs(want).max())
    back = inverse(found, shape, 1)
    assert back.dtype == dtype
    assert_allclose(back, image, rtol=0, atol=EPS[dtype])


def test_back_from_a_spectrum_of_no_real_image(jobs, rng):
    spectrum = rng.standard_normal((6, 4)) + 1j * rng.standard_normal((6, 4))
    for shape in [(6, 6), (6, 7)]:
        want = fft.irfft2(spectrum, shape)
        assert_allclose(inverse(spectrum, shape, 1), want, rtol=0, atol=1e-15)


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_do_not_change_a_bit(workers, jobs, rng):
    image = rng.random((61, 90))
    want = forward(image, 1)
    found = forward(image, workers)
    assert_array_equal(found, want)
    assert_array_equal(inverse(found, image.shape, workers), inverse(want, image.shape, 1))


@pytest.mark.parametrize(
    "image",
    [
        np.asfortranarray(np.arange(42.0).reshape(6, 7)),
        np.arange(168.0).reshape(12, 14)[::-2, ::2],
        np.arange(42, dtype=np.uint8).reshape(6, 7),
        np.arange(42.0, dtype=">f8").reshape(6, 7),
        np.arange(42.0).reshape(6, 7) % 5 > 2,
        np.broadcast_to(np.arange(7.0), (6, 7)),
    ],
    ids=["fortran", "strided", "uint8", "swapped", "bool", "broadcast"],
)
def test_any_layout_is_read_and_left_alone(image):
    before = image.copy()
    image.flags.writeable = False
    want = fft.rfft2(image.astype(float))
    assert_allclose(forward(image, 2), want, rtol=0, atol=1e-12 * np.abs(want).max())
    assert_array_equal(image, before)


def product(spectra, columns, scratch):
    spectra[0] *= spectra[1]


@pytest.mark.parametrize("origin", [(0, 0), (-3, 5), (13, -20)])
@pytest.mark.parametrize("size", [(20, 33), (1, 1), (7, 40), (25, 3)])
def test_a_filter_writes_the_part_that_is_asked_for(origin, size, jobs, rng):
    frame = (20, 33)
    image, psf = rng.random(frame), rng.random((4, 5))
    out = np.empty(size)
    parts = [rows_of(image, frame), rows_of(psf, frame, count=4)]
    done = filter_spectra(parts, product, frame, out, origin=origin, workers=2)
    want = fft.irfft2(fft.rfft2(image) * fft.rfft2(psf, frame), frame)
    rows, cols = (np.arange(start, start + n) for start, n in zip(origin, size, strict=True))
    want = want[rows[:, None] % frame[0], cols % frame[1]]
    assert_allclose(out, want, rtol=0, atol=1e-13)
    assert set(done) == {None}


def test_a_filter_of_a_small_image_fills_a_larger_frame(jobs, rng):
    frame, image = (9, 8), rng.random((2, 3))
    out = np.empty(frame, np.float32)
    filter_spectra([rows_of(image, frame, count=2)], lambda *_: None, frame, out)
    assert_allclose(out[:2, :3], image, rtol=0, atol=1e-6)
    assert_allclose(out[2:], 0, atol=1e-6)


def test_a_frame_extends_an_image_by_a_border_rule(rng):
    image, frame = rng.random((5, 6)), (11, 12)
    out = np.empty(frame)
    rows = rows_of(image, frame, origin=(-3, -2), boundary="symmetric")
    filter_spectra([rows], lambda *_: None, frame, out)
    assert_allclose(out, np.pad(image, ((3, 3), (2, 4)), "symmetric"), rtol=0, atol=1e-15)


def test_the_function_sees_every_column_once_and_in_order(jobs, rng):
    image, frame = rng.random((10, 21)), (10, 21)
    want = fft.rfft2(image)

    def look(spectra, columns, scratch):
        assert_allclose(spectra[0], want[:, columns].T, rtol=0, atol=1e-12)
        assert scratch.array("own", spectra[0].shape).shape == spectra[0].shape
        return columns

    out = np.empty(frame)
    seen = filter_spectra([rows_of(image, frame)], look, frame, out, workers=2)
    assert [i for columns in seen for i in range(columns.start, columns.stop)] == list(range(11))


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_changed_as_pixels(workers, jobs, rng):
    image, frame, seen = rng.random((12, 15)), (20, 33), []
    rows = image_transforms.row_spectra(
        rows_of(image, frame, count=12), frame, np.dtype(float), workers, room=12
    )
    image_transforms.transform_columns([rows], lambda *_: None, workers, back=(0, 12))

    def double(pixels, part):
        seen.extend(range(part.start, part.stop))
        assert_allclose(pixels[:, :15], image[part] * 20 * 33, rtol=1e-12)
        assert_allclose(pixels[:, 15:], 0, atol=1e-10)
        pixels /= 10 * 33

    image_transforms.change_rows(rows, double, 12, workers)
    assert sorted(seen) == list(range(12))
    found = image_transforms.transform_columns([rows], lambda lines, *_: lines[0].copy(), workers)
    assert_allclose(np.concatenate(found).T, 2 * fft.rfft2(image, frame), rtol=0, atol=1e-12)


def test_columns_stand_for_all_frequencies():
    for n in (1, 2, 7, 8):
        line = np.arange(1, n + 1)
        power = np.abs(fft.rfft(line)) ** 2
        assert image_transforms.columns_of(n) @ power == pytest.approx(n * (line @ line))


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pairs_are_looked_at_and_filtered(small, dtype, jobs, monkeypatch, rng):
    if not small:
        monkeypatch.setattr(pair_transforms, "SMALL_BYTES", 0)
    frame, image, psf = (20, 33), rng.random((18, 30)).astype(dtype), rng.random((4, 5))
    want = [fft.rfft2(part.astype(float), frame) for part in (image, psf)]
    parts = rows_of(image, frame, count=18), rows_of(psf, frame, count=4)
    out, done = np.empty((18, 30), dtype), []
    with pair_transforms.pair_spectra(*parts, frame, np.dtype(dtype), 2, room=18) as pair:
        assert pair.energy == pytest.approx(np.sum(np.square(image, dtype=float)), rel=1e-6)
        for _ in range(2):
            found = pair.columns(lambda lines, *_: np.array(lines))
            for i in range(2):
                lines = np.concatenate([part[i] for part in found])
                assert_allclose(lines.T, want[i], rtol=0, atol=EPS[dtype] * 1e3)
        pair.columns(product, lambda *counts: done.append(counts), (-3, 18))
        pair.invert(out, 40, lambda *counts: done.append(counts))
    whole = np.roll(fft.irfft2(want[0] * want[1], frame), (3, -40), (0, 1))[:18, :30]
    assert_allclose(out, whole, rtol=0, atol=EPS[dtype] * 1e2)
    assert all(counts[0] <= counts[1] for counts in done)
    assert done[-1][0] == done[-1][1]


def test_energy_is_that_of_the_pixels(jobs, rng):
    image = rng.random((14, 15)).astype(np.float32)
    found = image_transforms.row_spectra(rows_of(image, image.shape), image.shape, image.dtype, 2)
    assert found.energy == pytest.approx(np.sum(image.astype(float) ** 2), rel=1e-14)
    assert found.dtype == np.float32


def test_nan_stays_in_its_own_call(jobs, rng):
    image = rng.random((30, 20))
    want = forward(image, 1)
    spoilt = np.full_like(image, np.nan)
    assert np.isnan(forward(spoilt, 1)).all()
    assert np.isnan(inverse(forward(spoilt, 1), image.shape, 1)).all()
    assert_array_equal(forward(image, 1), want)
    assert_array_equal(inverse(want, image.shape, 1), inverse(want, image.shape, 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_goes_to_its_end(workers, jobs, rng):
    image, frame, calls = rng.random((40, 50)), (40, 50), []
    out = np.empty(frame)
    filter_spectra(
        [rows_of(image, frame)] * 2,
        product,
        frame,
        out,
        workers=workers,
        progress=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == (400, 400)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_stops_the_work(workers, jobs, rng):
    image, frame = rng.random((40, 50)), (40, 50)

    def fail(spectra, columns, scratch):
        msg = "enough"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="enough"):
        filter_spectra([rows_of(image, frame)], fail, frame, np.empty(frame), workers=workers)


def test_threads_may_transform_at_once(jobs, rng):
    images = [rng.random((40 + i % 3, 50)) for i in range(6)]
    want = [forward(image, 1) for image in images]
    start, right = threading.Barrier(6), []

    def call(i):
        start.wait()
        found = [forward(images[i], 1 + turn % 3) for turn in range(10)]
        right.append(all((spectrum == want[i]).all() for spectrum in found))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 6
