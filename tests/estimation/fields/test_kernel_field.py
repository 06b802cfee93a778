import functools
import io
import zipfile

import numpy as np
import pytest
import varying
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, signal

from fastkernel import KernelField, estimate_kernel_field
from fastkernel.estimation.display.fields import elongation
from fastkernel.estimation.fields import varying as engine

KERNEL, SIDES, INSIDE = (5, 3), (40, 44), (36, 42)
CASES = [{"degree": 0}, {"degree": 2, "scale_degree": 1, "background": 1}]
CASES += [{"grid": (2, 3), "background": 0}, {"degree": 1, "boundary": "symmetric"}]


@functools.cache
def fitted(*, degree=2, grid=None, boundary=None, **asked):
    rng = np.random.default_rng(3)
    source = rng.random(SIDES)
    shape = INSIDE if boundary is None else SIDES
    phi = varying.functions(shape, degree, grid)
    taps = rng.random((len(phi), *KERNEL))
    mode = "valid" if boundary is None else "same"
    result = varying.convolve(source, phi, taps, mode, boundary or "zero")
    result += 0.1 * rng.standard_normal(shape)
    asked = {"degree": degree, "grid": grid, "boundary": boundary, **asked}
    return source, result, estimate_kernel_field(source, result, KERNEL, tile=16, **asked)


def made(field, source):
    """The prediction, pixel by pixel from the kernels of every place."""
    mode = "valid" if field.boundary is None else "same"
    phi = varying.functions(field.shape, field.degree, field.grid)
    out = varying.convolve(source, phi, field.coefficients, mode, field.boundary or "zero")
    if field.background is not None:
        rows, cols = (np.linspace(-1, 1, n) for n in out.shape)
        out += np.polynomial.legendre.leggrid2d(rows, cols, field.background)
    return out


@pytest.mark.parametrize("asked", CASES, ids=str)
def test_predicts(asked, monkeypatch):
    source, result, field = fitted(**asked)
    expected = made(field, source)
    assert_allclose(field.predict(source), expected, rtol=0, atol=1e-12)
    assert_allclose(field.residual(source, result), result - expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(engine, "_STRIP_ROWS", 7)
    again = field.predict(source, background=False)
    phi = varying.functions(field.shape, field.degree, field.grid)
    mode, rule = ("same", field.boundary) if field.boundary else ("valid", "zero")
    bare = varying.convolve(source, phi, field.coefficients, mode, rule)
    assert_allclose(again, bare, rtol=0, atol=1e-12)


def test_a_bad_pixel_is_nan_wherever_it_has_a_part(monkeypatch):
    source, result, field = fitted(background=0)
    bad = np.zeros(SIDES, bool)
    bad[[3, 20, 39], [0, 30, 43]] = True
    reach = signal.convolve2d(bad, np.ones(KERNEL), "valid") > 0
    clean = field.predict(source)
    monkeypatch.setattr(engine, "_STRIP_ROWS", 11)
    for given in (
        {"source": source, "source_mask": bad},
        {"source": np.where(bad, np.nan, source)},
        {"source": np.ma.array(np.where(bad, 1e300, source), mask=bad)},
    ):
        found = field.predict(**given)
        assert_array_equal(np.isnan(found), reach)
        assert_allclose(found[~reach], clean[~reach], rtol=0, atol=1e-12)
    own = np.zeros(INSIDE, bool)
    own[7, 9] = True
    left = field.residual(source, result, source_mask=bad, mask=own)
    assert_array_equal(np.isnan(left), reach | own)


def test_a_rim_that_is_not_known_is_nan(rng):
    source = rng.random(SIDES)
    field = estimate_kernel_field(source, source, KERNEL, degree=1, tile=16)
    assert_array_equal(np.isfinite(field.predict(source)), field.used)
    assert not field.used[:2].any()
    assert not field.used[:, -1].any()
    assert_allclose(field.predict(source, boundary="mirror"), source, atol=1e-6)


@pytest.mark.parametrize("asked", CASES[2:], ids=str)
def test_variance_is_that_of_a_sum_of_pixels(asked, monkeypatch, rng):
    monkeypatch.setattr(engine, "_PART", 1)
    _, _, field = fitted(**asked)
    noise, own = rng.random(SIDES), rng.random(field.shape)
    mode, rule = ("same", field.boundary) if field.boundary else ("valid", "zero")
    kernels = varying.functions(field.shape, field.degree, field.grid)
    kernels = np.tensordot(kernels, field.coefficients, (0, 0))
    expected = own.copy()
    for i, j in np.ndindex(*KERNEL):
        unit = np.zeros(KERNEL)
        unit[i, j] = 1
        moved = varying.convolve(noise, [1.0], [unit], mode, rule)
        expected += kernels[:, :, i, j] ** 2 * moved
    assert_allclose(field.variance(noise, own), expected, rtol=1e-12)
    ones = varying.convolve(np.ones(SIDES), [1.0], [np.ones(KERNEL)], mode, rule)
    if np.ptp(ones) == 0:
        alike = 2 * (kernels**2).sum(axis=(2, 3))
        assert_allclose(field.variance(2), alike, rtol=1e-12)


def test_variance_takes_kernels_to_be_constant_in_parts():
    _, _, field = fitted()
    found = field.variance(1.0)
    middle = field.kernel_at(17.5, 20.5)
    assert_allclose(found, (middle**2).sum(), rtol=1e-12)


@pytest.mark.parametrize("shape", [None, 41, (41, 61)])
def test_decorrelation_makes_noise_white(shape, rng):
    source = rng.random((32, 32))
    blur = np.exp(-(np.hypot(*np.mgrid[-3:4, -3:4]) ** 2) / 3)
    result = ndimage.convolve(source, blur / blur.sum() * 1.7, mode="wrap")
    field = estimate_kernel_field(source, result, 7, degree=0, boundary="circular")
    v, w = 0.5, 0.4
    kernel = field.decorrelation(15, 15, v, w, shape=shape)
    assert kernel.shape == {None: (13, 13), 41: (41, 41)}.get(shape, shape)
    assert_allclose(kernel.sum(), 1)
    assert_allclose(kernel, kernel[::-1, ::-1], rtol=0, atol=1e-12)
    before = w + v * np.abs(np.fft.fft2(field.kernel_at(15, 15), (128, 128))) ** 2
    after = before * np.abs(np.fft.fft2(kernel, (128, 128))) ** 2
    # What no frequency loses is the sum.
    assert_allclose(after[0, 0], w + v * 1.7**2, rtol=1e-6)
    assert np.ptp(after) < (0.1 if shape is None else 1e-3) * after.mean()
    assert np.ptp(before) > 2 * before.mean()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 0), "must not both be 0"),
        ((-1, 1), "source_variance must be finite and at least 0, got -1"),
        ((1, np.nan), "result_variance must be finite and at least 0, got nan"),
        ((1, 1, 4), r"shape must be odd.*\(4, 4\)"),
    ],
    ids=str,
)
def test_decorrelation_refuses(given, message):
    _, _, field = fitted()
    with pytest.raises(ValueError, match=message):
        field.decorrelation(0, 0, *given[:2], shape=given[2] if len(given) > 2 else None)


def test_refuses_other_images():
    source, result, field = fitted()
    with pytest.raises(ValueError, match=r"source must have the shape \(40, 44\) that was fitted"):
        field.predict(source[1:])
    with pytest.raises(ValueError, match=r"result must have the shape \(36, 42\) that was fitted"):
        field.residual(source, result[1:])
    with pytest.raises(ValueError, match=r"source_mask must have the shape \(40, 44\)"):
        field.predict(source, source_mask=np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match=r"source_variance must have the shape \(40, 44\)"):
        field.variance(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"result_variance must have the shape \(36, 42\)"):
        field.variance(1.0, np.ones((3, 3)))
    with pytest.raises(TypeError, match="source must"):
        field.predict(source * 1j)


@pytest.mark.parametrize("asked", CASES, ids=str)
def test_crops(asked):
    source, _, field = fitted(**asked)
    small = field.crop((3, 2))
    assert small.kernel_shape == (3, 2)
    # The centre tap of a side of 2 is the earlier one.
    taps = np.zeros_like(field.coefficients)
    taps[:, 1:4, 1:3] = field.coefficients[:, 1:4, 1:3]
    assert_allclose(small.kernel_at(3, 4), field.kernel_at(3, 4)[1:4, 1:3], rtol=1e-13)
    bars = field.standard_errors_at(3, 4)[1:4, 1:3]
    assert_allclose(small.standard_errors_at(3, 4), bars, rtol=1e-12)
    mode, rule = ("same", field.boundary) if field.boundary else ("valid", "zero")
    phi = varying.functions(field.shape, field.degree, field.grid)
    expected = varying.convolve(source, phi, taps, mode, rule)
    assert_allclose(small.predict(source, background=False), expected, rtol=0, atol=1e-12)
    assert small.crop((3, 2)).kernel_shape == (3, 2)
    with pytest.raises(ValueError, match=r"kernel_shape must fit inside \(3, 2\), got \(5, 5\)"):
        small.crop(5)


@pytest.mark.parametrize("asked", [*CASES, {"source_variance": 0.01}], ids=str)
def test_saves_and_loads(asked, tmp_path):
    source, _, field = fitted(**asked)
    field = field.crop(3)
    field.save(tmp_path / "field.npz")
    again = KernelField.load(str(tmp_path / "field.npz"))
    for name in field.__dataclass_fields__:
        own, read = getattr(field, name), getattr(again, name)
        assert type(own) is type(read)
        assert_array_equal(own, read)
    assert repr(again) == repr(field)
    assert_array_equal(again.predict(source), field.predict(source))
    assert_array_equal(again.standard_errors_at(3, 3), field.standard_errors_at(3, 3))


def altered(path, **changes):
    with np.load(path) as file:
        content = dict(file)
    for name, change in changes.items():
        if change is None:
            del content[name]
        else:
            content[name] = change(content[name])
    out = io.BytesIO()
    np.savez(out, **content)
    return out.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"coefficients": None},
        {"n_pixels": None},
        {"coefficients": lambda a: a[1:]},
        {"coefficients": lambda a: a.astype(np.float32)},
        {"coefficients": lambda a: a * np.nan},
        {"coefficients": lambda a: a[0]},
        {"coefficients": lambda a: a.astype(object)},
        {"degree": lambda a: a + 1},
        {"degree": lambda a: -a},
        {"shape": lambda a: a + 1},
        {"shape": lambda a: -a},
        {"source_shape": lambda a: a + 1},
        {"fitted_shape": lambda a: a - 1},
        {"factor": lambda a: a[1:, 1:]},
        {"turn": lambda a: a[:, 1:]},
        {"scales": lambda a: a[:, 1:]},
        {"used": lambda a: a[1:]},
        {"used": lambda a: a.astype(int)},
        {"background": lambda a: a[1:]},
        {"boundary": lambda a: np.array("none such")},
        {"residual_rms": lambda a: np.array("many")},
        {"degree": lambda a: np.zeros(3)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_refuses_damaged_files(changes, tmp_path):
    _, _, field = fitted(background=0, boundary="zero", degree=1)
    path = tmp_path / "field.npz"
    field.save(path)
    path.write_bytes(altered(path, **changes))
    with pytest.raises(ValueError, match=r"field.npz' does not hold a field saved by fastkernel"):
        KernelField.load(path)


def test_refuses_other_files(tmp_path):
    _, _, field = fitted(degree=0)
    path = tmp_path / "field.npz"
    field.save(path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:300], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="does not hold a field"):
            KernelField.load(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("degree.npy", b"nothing")
    with pytest.raises(ValueError, match="does not hold a field"):
        KernelField.load(path)
    with pytest.raises(OSError, match="none"):
        KernelField.load(tmp_path / "none")


def test_is_shown():
    pytest.importorskip("matplotlib")
    for asked in CASES[1:3]:
        _, _, field = fitted(**asked)
        figure = field.plot((2, 3))
        sheet, sticks, scale, *_ = figure.axes
        image = np.asarray(sheet.images[0].get_array())
        assert image.shape == (2 * 6 - 1, 3 * 4 - 1)
        rows, cols = field.shape
        place = (0.25 * rows - 0.5, cols / 2 - 0.5)
        assert_allclose(image[:5, 4:7], field.kernel_at(*place), rtol=1e-12)
        assert len(sticks.lines) == 12
        values = np.asarray(scale.images[0].get_array())
        assert_allclose(values[0, 0], field.scale_at(0, 0), rtol=1e-12)
        assert_allclose(values[-1, 0], field.scale_at(rows - 1, 0), rtol=1e-12)
    html = field._repr_html_()
    assert "<img" in html
    assert "kernels 5×3" in html
    with pytest.raises(ValueError, match=r"grid must"):
        field.plot((0, 2))


def test_tells_what_it_is():
    _, _, field = fitted(degree=2)
    assert "degree 2, kernels 5×3, over 36×42 pixels" in repr(field)
    assert f"over {36 * 42} pixels" in repr(field)
    assert "ridge" not in repr(field)
    _, _, field = fitted(grid=(2, 1), ridge=0.5)
    assert "2×1 cells" in repr(field)
    assert "ridge: 0.5" in repr(field)


def test_elongation():
    line = np.zeros((5, 5))
    np.fill_diagonal(line, 1)
    assert_allclose(elongation(line), (1, np.pi / 4))
    row = np.zeros((3, 7))
    row[1] = 1
    assert_allclose(elongation(row), (1, 0), atol=1e-12)
    assert elongation(np.ones((3, 3)))[0] == pytest.approx(0, abs=1e-12)
    assert elongation(-np.ones((3, 3))) == (0.0, 0.0)
    assert elongation(np.ones((1, 1))) == (0.0, 0.0)
