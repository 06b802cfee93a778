"""Convolution equals its definition bit for bit, whatever is convolved and by which engine."""

import itertools
import subprocess
import sys
import threading

import hypothesis.extra.numpy as hnp
import naive
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, signal
from scipy.sparse.linalg import LinearOperator, lsqr
from shared import ALIASES, JIT
from test_memory import peak_of

from fastkernel import convolution_matrix, convolution_operator, convolve, correlate

SIDES = range(1, 10) if JIT else range(1, 6)
ENGINES = ("direct", "separable", "fft")
MODES = ("full", "same", "valid")
RULES = tuple(naive.PAD_MODES)
OPERATIONS = {False: convolve, True: correlate}  # by what `naive.filtered` calls correlation

# To "valid" the rule makes no difference.
MODES_AND_RULES = [*itertools.product(("full", "same"), RULES), ("valid", "mirror")]


@pytest.fixture(params=["whole tiles", "small tiles"])
def tiles(request):
    if request.param == "small tiles":
        request.getfixturevalue("small_tiles")


def shapes(mode, sides=SIDES):
    """Every square image with every square kernel, and of the others one in 41."""
    squares = (((m, m), (p, p)) for m, p in itertools.product(sides, repeat=2))
    others = itertools.islice(itertools.product(sides, repeat=4), 0, None, 41)
    for (m, n), (p, q) in itertools.chain(squares, ((s[:2], s[2:]) for s in others)):
        if mode != "valid" or (p <= m and q <= n):
            yield (m, n), (p, q)


def whole_numbers(rng, shape, dtype=np.float64):
    """Few enough digits that no sum rounds, in an array that refuses to be written to."""
    array = rng.integers(-9, 10, shape).astype(dtype)
    array.flags.writeable = False
    return array


def kernel_for(engine, shape, rng):
    """A kernel of whole numbers that the engine takes."""
    if engine != "separable":
        return whole_numbers(rng, shape)
    return whole_numbers(rng, (shape[0], 1)) * whole_numbers(rng, (1, shape[1]))


def rounded(found, engine):
    return np.rint(found) if engine == "fft" else found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ENGINES)
def test_equals_the_definition_for_every_small_shape(engine, mode, rng, tiles):
    rules = [rule for one, rule in MODES_AND_RULES if one == mode]
    for image_shape, kernel_shape in shapes(mode):
        image = whole_numbers(rng, image_shape)
        kernel = kernel_for(engine, kernel_shape, rng)
        for rule in rules:
            flipped, dtype = bool(rng.integers(2)), rng.choice([np.float32, np.float64])
            call = OPERATIONS[flipped]
            want = naive.filtered(image, kernel, mode, rule, flipped)
            got = call(image.astype(dtype), kernel, mode, rule, method=engine)
            where = call.__name__, image_shape, kernel_shape, rule, dtype
            # NumPy's own assertion would take longer than all the rest.
            assert np.array_equal(rounded(got, engine), want), where
            assert got.dtype == dtype


@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (4, 5), (1, 9), (8, 2), (11, 13)])
@pytest.mark.parametrize("engine", ENGINES)
def test_equals_the_definition_in_tiles_of_every_remainder(engine, kernel_shape, rng, tiles):
    for shape in [(37, 40), (5, 131), (130, 7)] if JIT else [(12, 17)]:
        image = whole_numbers(rng, shape)
        kernel = kernel_for(engine, kernel_shape, rng)
        for mode, rule in [("same", "zero"), ("same", "mirror"), ("full", "circular")]:
            want = naive.filtered(image, kernel, mode, rule)
            assert_array_equal(
                rounded(convolve(image, kernel, mode, rule, method=engine), engine), want
            )


@pytest.mark.jit
@pytest.mark.parametrize("engine", ENGINES)
def test_equals_the_definition_in_an_image_of_many_tiles(engine, rng):
    image = whole_numbers(rng, (150, 1100))
    kernel = kernel_for(engine, (6, 5), rng)
    for mode, rule in MODES_AND_RULES:
        got = convolve(image, kernel, mode, rule, method=engine)
        rows, cols = (
            naive.pixels_under(length, taps, mode, rule)
            for length, taps in zip(image.shape, kernel.shape, strict=True)
        )
        larger = np.pad(image, ((0, 1), (0, 1)))
        want = np.zeros(got.shape)
        for i, j in np.ndindex(kernel.shape):
            want += kernel[i, j] * larger[rows[:, i, None], cols[:, j]]
        assert_array_equal(rounded(got, engine), want, f"{mode}, {rule}")


def test_chooses_one_of_the_engines(rng):
    for shape in [(1, 1), (3, 3), (9, 9), (41, 41)]:
        for kernel in (rng.random(shape), np.outer(*(rng.random(n) for n in shape))):
            image = rng.random((90, 80) if JIT else (50, 45))
            found = [convolve(image, kernel, method=e) for e in ENGINES if e != "separable"]
            if np.linalg.matrix_rank(kernel) == 1:
                found.append(convolve(image, kernel, method="separable"))
            chosen = convolve(image, kernel)
            assert any((chosen == one).all() for one in found)


def test_defaults_are_those_of_scipy(rng):
    image, kernel = whole_numbers(rng, (7, 8)), whole_numbers(rng, (3, 2))
    assert_array_equal(convolve(image, kernel), signal.convolve2d(image, kernel))
    assert_array_equal(correlate(image, kernel), signal.correlate2d(image, kernel))


sizes = st.integers(1, 6)
SCIPY_RULES = {"zero": "fill", "circular": "wrap", "symmetric": "symm"}
NDIMAGE_RULES = dict(
    zip(RULES, ["constant", "grid-wrap", "nearest", "reflect", "mirror"], strict=True)
)


@st.composite
def images_and_kernels(draw, odd=False):
    p, q, more_rows, more_cols = draw(st.tuples(sizes, sizes, sizes, sizes))
    p, q = (p | 1, q | 1) if odd else (p, q)
    whole = st.integers(-9, 9).map(float)
    kernel = draw(hnp.arrays(np.float64, (p, q), elements=whole))
    image = draw(hnp.arrays(np.float64, (p + more_rows, q + more_cols), elements=whole))
    return image, kernel


@given(both=images_and_kernels(), mode=st.sampled_from(MODES))
def test_agrees_with_scipy_signal(both, mode):
    assert_array_equal(convolve(*both, mode), signal.convolve2d(*both, mode))
    if mode == "full":
        for rule, name in SCIPY_RULES.items():
            want = signal.convolve2d(*both, mode, name)
            assert_array_equal(convolve(*both, mode, rule), want, rule)


@given(both=images_and_kernels(odd=True), rule=st.sampled_from(RULES))
def test_agrees_with_scipy_ndimage(both, rule):
    mode = NDIMAGE_RULES[rule]
    assert_array_equal(convolve(*both, "same", rule), ndimage.convolve(*both, mode=mode))
    assert_array_equal(correlate(*both, "same", rule), ndimage.correlate(*both, mode=mode))


@given(both=images_and_kernels(), factor=st.integers(-9, 9), mode=st.sampled_from(MODES))
def test_is_linear_and_flips_the_kernel(both, factor, mode):
    image, kernel = both
    want = convolve(image, kernel, mode)
    assert_array_equal(convolve(factor * image, kernel, mode), factor * want)
    assert_array_equal(convolve(image, factor * kernel, mode), factor * want)
    if mode != "same":  # its centre tap would move in kernels of even size
        assert_array_equal(correlate(image, kernel[::-1, ::-1], mode), want)
    if mode == "full":
        assert_array_equal(convolve(kernel, image), want)


# Numbers


@pytest.mark.parametrize("dtype", "?bBhHiIlLqQefdg")
def test_every_real_dtype(dtype, rng):
    image = rng.integers(0, 2 if dtype == "?" else 90, (9, 11)).astype(dtype)
    kernel = whole_numbers(rng, (3, 2))
    got = convolve(image, kernel)
    assert got.dtype == (np.float32 if dtype == "f" else np.float64)
    assert_array_equal(got, signal.convolve2d(image.astype(float), kernel))


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_the_image_decides_the_dtype(engine, rng):
    image = rng.random((40, 50))
    kernel = np.outer(rng.random(5), rng.random(4))
    for pixels, taps in itertools.product((np.float32, np.float64), repeat=2):
        if engine == "separable" and taps is np.float32 and pixels is np.float64:
            continue  # rounded to float32 it has not the rank one that it has
        got = convolve(image.astype(pixels), kernel.astype(taps), method=engine)
        assert got.dtype == pixels
        want = signal.convolve2d(image, kernel)
        assert_allclose(got, want, rtol=0, atol=4e-7 * want.max())
        want = convolve(image.astype(pixels), kernel.astype(taps).astype(pixels), method=engine)
        assert_array_equal(got, want)


@pytest.fixture(scope="module")
def photograph():
    """With as many digits as float32 holds; a photograph's own are sums without rounding."""
    image = skimage.data.camera()[100:220, 180:330] / 255
    return (image + 1e-3 * np.random.default_rng(7).random(image.shape)).astype(np.float32)


def accurate(image, kernel):
    """The "same" convolution with mirrored edges, summed in long double."""
    x = naive.extended(image, kernel.shape, "same", "mirror").astype(np.longdouble)
    out = np.zeros(image.shape, np.longdouble)
    for (i, j), tap in np.ndenumerate(kernel[::-1, ::-1].astype(np.longdouble)):
        out += tap * x[i : i + image.shape[0], j : j + image.shape[1]]
    return out


def largest_error(got, want):
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("taps", [3, 9, 15, 31, 63] if JIT else [3, 9])
@pytest.mark.parametrize("engine", ENGINES)
def test_rounds_little_on_a_photograph(engine, taps, photograph, rng):
    kernel = rng.uniform(0.1, 1, (taps, taps))
    if engine == "separable":
        kernel = np.outer(rng.uniform(0.1, 1, taps), rng.uniform(0.1, 1, taps))
    bounds = {np.float32: 6e-7, np.float64: 1.5e-15 * np.log2(taps**2)}
    for dtype, bound in bounds.items():
        image, cast = photograph.astype(dtype), (kernel / kernel.sum()).astype(dtype)
        got = convolve(image, cast, "same", "mirror", method=engine)
        assert largest_error(got, accurate(image, cast)) <= bound, dtype


@pytest.mark.jit
@pytest.mark.parametrize("engine", ["auto", "fft"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_faint_halo_is_not_lost(dtype, engine, photograph):
    """Each of its taps is below the rounding of the peak; together they are not."""
    line = np.exp(-(np.arange(-31.0, 32) ** 2) / 2)
    kernel = (np.outer(line, line) + 3 * np.finfo(dtype).eps).astype(dtype)
    image = photograph.astype(dtype)
    got = convolve(image, kernel, "same", "mirror", method=engine)
    bound = 6e-7 if dtype == np.float32 else 1.5e-15 * np.log2(kernel.size)
    assert largest_error(got, accurate(image, kernel)) <= bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", 10.0 ** -np.arange(2, 17, 2))
def test_a_kernel_that_is_nearly_separable_is_taken_as_it_is(noise, dtype, photograph, rng):
    kernel = np.outer(rng.uniform(0.1, 1, 15), rng.uniform(0.1, 1, 15))
    kernel = (kernel * (1 + noise * rng.standard_normal(kernel.shape))).astype(dtype)
    image = photograph.astype(dtype)
    error = largest_error(convolve(image, kernel, "same", "mirror"), accurate(image, kernel))
    assert error <= (6e-7 if dtype == np.float32 else 1.2e-14)


# Pixels that are no numbers


def reached(shape, place, kernel_shape, mode, rule):
    """Which outputs a pixel is part of."""
    spot = np.zeros(shape)
    spot[place] = 1
    return naive.filtered(spot, np.ones(kernel_shape), mode, rule) > 0


@pytest.mark.parametrize("engine", ["auto", "direct", "separable"])
def test_a_pixel_that_is_no_number_spoils_what_the_kernel_reaches(engine, rng, tiles):
    shape, bads = (14, 19), itertools.cycle([np.nan, np.inf, -np.inf])
    for kernel_shape in [(1, 1), (3, 4), (5, 2), (4, 11)]:
        kernel = np.outer(*(rng.integers(1, 9, n) for n in kernel_shape))
        for place, (mode, rule) in itertools.product(
            [(0, 0), (13, 18), (6, 9), (7, 0)], MODES_AND_RULES
        ):
            image = rng.integers(-9, 10, shape).astype(float)
            want = naive.filtered(image, kernel, mode, rule)
            image[place] = bad = next(bads)
            want[reached(shape, place, kernel_shape, mode, rule)] = bad
            got = convolve(image, kernel, mode, rule, method=engine)
            assert_array_equal(got, want, f"{bad}, {kernel_shape}, {place}, {mode}, {rule}")
            # What a spoilt call leaves behind must not reach the next one.
            image[place] = 0
            assert np.isfinite(convolve(image, kernel, mode, rule, method=engine)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_transforms_refuse_a_pixel_that_is_no_number(bad, rng, tiles):
    image, kernel = rng.random((20, 30)), rng.random((5, 4))
    for place in [(7, 9), (0, 0), (19, 29)]:
        spoilt = image.copy()
        spoilt[place] = bad
        row, col = place
        with pytest.raises(
            ValueError,
            match=rf"image must be finite, got {bad} at index \({row}, {col}\); crop it away, use",
        ):
            convolve(spoilt, kernel, method="fft")
        got = convolve(spoilt, kernel, "same", method="fft", check_finite=False)
        assert not np.isfinite(got[reached(image.shape, place, kernel.shape, "same", "zero")]).any()
        assert np.isfinite(convolve(image, kernel, method="fft")).all()


def test_the_first_of_several_is_named(rng):
    image = rng.random((300, 20))
    image[270, 3] = image[271, 0] = np.nan
    with pytest.raises(ValueError, match=r"got nan at index \(270, 3\)"):
        convolve(image, np.ones((3, 3)), method="fft")
    colour = np.zeros((9, 8, 3))
    colour[4, 5, 1] = np.nan
    with pytest.raises(ValueError, match=r"image channel 1 .* got nan at index \(4, 5\)"):
        convolve(colour, np.ones((3, 3)), method="fft", channel_axis=-1)


def test_a_pixel_that_no_output_sees_is_not_looked_at(rng):
    """A kernel larger than a replicated line: the far edge is out of its reach."""
    image = np.zeros((3, 300))
    image[:, 150] = np.nan
    got = convolve(image, np.ones((1, 5)), "same", method="direct")
    assert np.isnan(got).sum() == 15


@pytest.mark.parametrize("engine", ENGINES)
def test_large_numbers_may_overflow(engine):
    image = np.full((6, 6), 3e38, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        got = convolve(image, np.ones((3, 3)), "valid", method=engine, check_finite=False)
    assert not np.isfinite(got).any()


# Arrays


def layouts(image):
    misaligned = np.empty(image.nbytes + 1, np.uint8)[1:].view(image.dtype).reshape(image.shape)
    misaligned[:] = image
    wide = np.zeros((2 * image.shape[0], 3 * image.shape[1]), image.dtype)
    wide[::2, ::3] = image
    frozen = image.copy()
    frozen.flags.writeable = False
    return {
        "Fortran": np.asfortranarray(image),
        "negative strides": image[::-1, ::-1].copy()[::-1, ::-1],
        "strided": wide[::2, ::3],
        "other byte order": image.astype(image.dtype.newbyteorder()),
        "misaligned": misaligned,
        "read-only": frozen,
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_layout_changes_no_bit(engine, dtype, rng, tiles):
    image = (rng.random((40, 61)) * 200).astype(dtype)
    kernel = np.outer(rng.random(3), rng.random(5))
    want = convolve(image, kernel, "same", "mirror", method=engine)
    assert_array_equal(convolve(image.tolist(), kernel, method=engine).shape, (42, 65))
    for name, other in layouts(image).items():
        before = other.copy()
        got = convolve(other, kernel, "same", "mirror", method=engine)
        assert_array_equal(got, want, name)
        assert_array_equal(other, before)
        assert got.dtype.isnative
    for name, other in layouts(kernel).items():
        assert_array_equal(convolve(image, other, "same", "mirror", method=engine), want, name)


def test_a_kernel_of_any_kind(rng):
    image = whole_numbers(rng, (9, 8))
    kernel = whole_numbers(rng, (3, 4))
    want = signal.convolve2d(image, kernel)
    for other in (kernel.astype(int), kernel.tolist(), kernel.astype(">i2"), kernel.astype("g")):
        assert_array_equal(convolve(image, other), want)
    assert_array_equal(convolve(image, kernel > 0), signal.convolve2d(image, kernel > 0))
    assert_array_equal(convolve(image, np.zeros((3, 4)), method="separable"), np.zeros((11, 11)))


@pytest.mark.parametrize("engine", ENGINES)
def test_workers_change_no_bit(engine, rng, tiles):
    image, kernel = rng.random((40, 61)), np.outer(rng.random(4), rng.random(5))
    want = convolve(image, kernel, method=engine, workers=1)
    for workers in (2, 3, None):
        assert_array_equal(convolve(image, kernel, method=engine, workers=workers), want)


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_workers_change_no_bit_of_many_tiles(engine, dtype, rng):
    image = (rng.random((700, 1300)) * 255).astype(dtype)
    kernel = np.outer(rng.random(7), rng.random(6))
    want = convolve(image, kernel, method=engine, workers=1)
    for workers in (2, 3, 4, None):
        assert_array_equal(convolve(image, kernel, method=engine, workers=workers), want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_writes_into_any_array(engine, dtype, rng, tiles):
    image = rng.random((23, 31)).astype(dtype)
    kernel = np.outer(rng.random(4), rng.random(3))
    for mode, rule in MODES_AND_RULES:
        want = convolve(image, kernel, mode, rule, method=engine)
        outs = {name: out for name, out in layouts(want).items() if out.flags.writeable}
        for name, out in (outs | {"C": want.copy()}).items():
            out[...] = 7
            assert convolve(image, kernel, mode, rule, method=engine, out=out) is out
            assert_array_equal(out, want, name)


def test_what_stands_between_strided_outputs_is_left_alone(rng, tiles):
    image, kernel = rng.random((23, 31)), rng.random((3, 3))
    wide = np.full((46, 93), 7.0)
    convolve(image, kernel, "same", out=wide[::2, 1::3])
    assert_array_equal(wide[::2, 1::3], convolve(image, kernel, "same"))
    wide[::2, 1::3] = 7
    assert (wide == 7).all()


def test_interleaved_arrays_do_not_overlap(rng):
    pixels = rng.random((12, 40))
    want = convolve(pixels[:, ::2].copy(), np.ones((3, 3)), "same")
    out = pixels[:, 1::2]
    assert convolve(pixels[:, ::2], np.ones((3, 3)), "same", out=out) is out
    assert_array_equal(out, want)


@pytest.mark.parametrize("engine", ENGINES)
def test_mapped_files(engine, rng, tmp_path):
    image = np.memmap(tmp_path / "image", np.float32, "w+", shape=(60, 70))
    image[...] = rng.random(image.shape)
    image.flush()
    image = np.memmap(tmp_path / "image", np.float32, "r", shape=(60, 70))
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=(62, 71))
    kernel = np.outer(rng.random(3), rng.random(2))
    assert convolve(image, kernel, method=engine, out=out) is out
    out.flush()
    want = convolve(np.array(image), kernel, method=engine)
    assert_array_equal(np.fromfile(tmp_path / "out", np.float32).reshape(out.shape), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ENGINES)
def test_channels_are_convolved_one_by_one(engine, mode, rng, tiles):
    kernel = kernel_for(engine, (4, 3), rng)
    for channels, axis in itertools.product((1, 3, 5), (0, 1, 2, -1, -2, -3)):
        images = whole_numbers(rng, (channels, 11, 9), np.float32)
        want = np.stack(
            [convolve(image, kernel, mode, "mirror", method=engine) for image in images]
        )
        for stack in (np.moveaxis(images, 0, axis), np.moveaxis(images, 0, axis).copy()):
            got = convolve(stack, kernel, mode, "mirror", method=engine, channel_axis=axis)
            assert got.dtype == np.float32
            assert_array_equal(np.moveaxis(got, axis, 0), want)
            out = np.empty_like(got)
            given = {"method": engine, "channel_axis": axis, "out": out}
            assert correlate(stack, kernel, mode, "zero", **given) is out
            first = correlate(images[-1], kernel, mode, "zero", method=engine)
            assert_array_equal(np.moveaxis(out, axis, 0)[-1], first)


@pytest.mark.jit
def test_channels_at_once_or_one_by_one_are_the_same_bits(rng):
    colour = rng.random((300, 500, 3)).astype(np.float32)
    for taps in (5, 25):
        kernel = rng.random((taps, taps))
        want = [convolve(colour[..., i], kernel, "same") for i in range(3)]
        got = convolve(colour, kernel, "same", channel_axis=-1)
        assert got.shape == colour.shape
        assert_array_equal(got, np.stack(want, axis=-1))


# Refusals

IMAGE = np.random.default_rng(5).random((20, 30))
KERNEL = np.random.default_rng(6).random((5, 3))
READ_ONLY = np.zeros((20, 30))
READ_ONLY.flags.writeable = False

REFUSALS = {
    "complex image": (
        {"image": IMAGE + 1j},
        TypeError,
        r"image must hold real numbers, got dtype complex128; take \.real or \.imag",
    ),
    "object kernel": (
        {"kernel": KERNEL.astype(object)},
        TypeError,
        r"kernel must hold real numbers, got dtype object; convert it with \.astype",
    ),
    "masked image": (
        {"image": np.ma.masked_less(IMAGE, 0.5)},
        TypeError,
        r"image must not be masked, got .* set at \d+ pixels .*; crop to pixels that are good",
    ),
    "masked kernel": (
        {"kernel": np.ma.masked_less(KERNEL, 0.5)},
        TypeError,
        r"kernel must not be masked",
    ),
    "colour without channel_axis": (
        {"image": np.zeros((20, 30, 3))},
        ValueError,
        r"image must have 2 dimensions, \(rows, cols\), got shape \(20, 30, 3\); .* channel_axis=",
    ),
    "grey with channel_axis": (
        {"channel_axis": -1},
        ValueError,
        r"image must have 3 dimensions, \(rows, cols\) and one channel axis, got shape \(20, 30\)",
    ),
    "no such channel_axis": (
        {"image": np.zeros((4, 4, 3)), "channel_axis": 3},
        ValueError,
        r"channel_axis must be an axis of a 3-dimensional image, got 3",
    ),
    "a line": ({"image": IMAGE[0]}, ValueError, r"image must have 2 dimensions.*got shape \(30,\)"),
    "a kernel of one dimension": (
        {"kernel": [1, 2, 1]},
        ValueError,
        r"kernel must have 2 dimensions, \(rows, cols\), got shape \(3,\)",
    ),
    "a kernel of three": (
        {"kernel": np.ones((3, 3, 3))},
        ValueError,
        r"kernel must have 2 dimensions, \(rows, cols\), got shape \(3, 3, 3\)",
    ),
    "empty image": (
        {"image": np.zeros((0, 4))},
        ValueError,
        r"image must have at least one pixel, got shape \(0, 4\)",
    ),
    "empty kernel": ({"kernel": np.zeros((0, 4))}, ValueError, r"kernel must have at least one"),
    "NaN in the kernel": (
        {"kernel": np.where(np.arange(15).reshape(5, 3) == 7, np.nan, KERNEL)},
        ValueError,
        r"kernel must be finite, got nan at index \(2, 1\)",
    ),
    "infinity in the kernel": (
        {"kernel": [[1, 2], [-np.inf, np.nan]]},
        ValueError,
        r"kernel must be finite, got -inf at index \(1, 0\)",
    ),
    "a kernel that float32 does not hold": (
        {"image": IMAGE.astype(np.float32), "kernel": [[1, 2], [1e39, 1e40]]},
        ValueError,
        r"kernel in float32 must be finite, got inf at index \(1, 0\)",
    ),
    "unknown mode": (
        {"mode": "all"},
        ValueError,
        r"mode must be .*'full'.*'same'.*'valid', got 'all'",
    ),
    "reflect": (
        {"boundary": "reflect"},
        ValueError,
        r"repeats the edge pixel in SciPy and does not in NumPy; say 'symmetric' .* or 'mirror'",
    ),
    "unknown border rule": (
        {"boundary": "bounce"},
        ValueError,
        r"boundary must be one of zero, circular, replicate, symmetric, mirror, got 'bounce'",
    ),
    "unknown method": (
        {"method": "magic"},
        ValueError,
        r"method must be .*'auto'.*'direct'.*'separable'.*'fft', got 'magic'",
    ),
    "not separable": (
        {"method": "separable"},
        ValueError,
        r"kernel must be of rank one for method='separable'; use 'auto'",
    ),
    "kernel larger than the image": (
        {"mode": "valid", "kernel": np.ones((21, 5))},
        ValueError,
        r"kernel must fit inside the image for mode='valid': got \(21, 5\) for image \(20, 30\); "
        r"use at most \(20, 30\), or mode='same' or 'full'",
    ),
    "no workers": (
        {"workers": 0},
        ValueError,
        r"workers must be a positive integer, or None for every usable core, got 0",
    ),
    "out of another shape": (
        {"out": np.zeros((22, 32))},
        ValueError,
        r"out must have shape \(20, 30\).*got \(22, 32\)",
    ),
    "out of another dtype": (
        {"out": np.zeros((20, 30), np.float32)},
        TypeError,
        r"out must have dtype float64, got float32",
    ),
    "a list as out": ({"out": [[0.0]]}, TypeError, r"out must be a NumPy array, or .* got list"),
    "read-only out": ({"out": READ_ONLY}, ValueError, r"out must be writeable"),
    "out is the image": ({"out": IMAGE}, ValueError, r"out must not .*image"),
    "out is a part of the image": (
        {"image": IMAGE[:, :15], "out": IMAGE[:, 10:25]},
        ValueError,
        r"out must not .*image",
    ),
    "out is the kernel": (
        {"kernel": IMAGE, "image": IMAGE + 1, "out": IMAGE},
        ValueError,
        r"out must not .*kernel",
    ),
}


@pytest.mark.parametrize("call", [convolve, correlate])
@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(case, call):
    options, error, message = REFUSALS[case]
    given = {"image": IMAGE, "kernel": KERNEL, "mode": "same"} | options
    before = IMAGE.copy()
    with pytest.raises(error, match=message):
        call(**given)
    assert_array_equal(IMAGE, before)


@pytest.mark.parametrize(("alias", "rule"), ALIASES)
def test_aliases_of_other_libraries(alias, rule):
    assert_array_equal(
        convolve(IMAGE, KERNEL, "full", alias), convolve(IMAGE, KERNEL, "full", rule)
    )


# Adjoints and operators


def operator_of(rng, image_shape, kernel_shape, mode, rule):
    kernel = whole_numbers(rng, kernel_shape)
    return convolution_operator(kernel, image_shape, mode, rule), kernel


@pytest.mark.parametrize(("mode", "rule"), MODES_AND_RULES)
def test_operator_and_its_adjoint_are_a_matrix(mode, rule, rng, tiles):
    for image_shape, kernel_shape in shapes(mode, range(1, 5)):
        operator, kernel = operator_of(rng, image_shape, kernel_shape, mode, rule)
        n_pixels = image_shape[0] * image_shape[1]
        pixels = np.eye(n_pixels)
        matrix = operator.matmat(pixels)
        want = [
            naive.filtered(one.reshape(image_shape), kernel, mode, rule).ravel() for one in pixels
        ]
        assert operator.shape == matrix.shape == (len(want[0]), n_pixels)
        assert_array_equal(matrix.T, want)
        assert_array_equal(operator.rmatmat(np.eye(len(matrix))), matrix.T)
        assert_array_equal(
            matrix, convolution_matrix(kernel, image_shape, mode, rule, format="dense")
        )


@pytest.mark.parametrize(("mode", "rule"), MODES_AND_RULES)
def test_operator_is_the_convolution(mode, rule, rng):
    for image_shape, kernel_shape in [((9, 7), (3, 3)), ((6, 8), (4, 2)), ((5, 9), (5, 8))]:
        operator, kernel = operator_of(rng, image_shape, kernel_shape, mode, rule)
        image = whole_numbers(rng, image_shape)
        want = convolve(image, kernel, mode, rule)
        assert isinstance(operator, LinearOperator)
        assert operator.dtype == np.float64
        assert_array_equal(operator @ image.ravel(), want.ravel())
        assert_array_equal(operator.matvec(image.reshape(-1, 1)), want.reshape(-1, 1))
        assert_array_equal(
            operator @ np.stack([image.ravel()] * 2, 1), np.stack([want.ravel()] * 2, 1)
        )
        result = whole_numbers(rng, want.shape)
        assert np.vdot(want, result) == np.vdot(image, operator.T @ result.ravel())
        assert_array_equal(operator.H @ result.ravel(), operator.rmatvec(result.ravel()))


@pytest.mark.parametrize(("mode", "rule"), MODES_AND_RULES)
@pytest.mark.parametrize(
    ("image_shape", "kernel_shape"),
    [
        ((40, 50), (9, 9)),
        ((40, 50), (8, 5)),
        ((70, 60), (41, 36)) if JIT else ((40, 30), (25, 20)),
        ((9, 5), (20, 31)),
    ],
)
def test_adjoint_to_rounding(image_shape, kernel_shape, mode, rule, rng):
    if mode == "valid" and kernel_shape > image_shape:
        kernel_shape = kernel_shape[0] // 4, kernel_shape[1] // 8
    kernel = rng.standard_normal(kernel_shape)
    operator = convolution_operator(kernel, image_shape, mode, rule, workers=2)
    x, y = (rng.standard_normal(n) for n in operator.shape[::-1])
    forward, back = operator.matvec(x), operator.rmatvec(y)
    size = np.linalg.norm(forward) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(back)
    assert abs(forward @ y - x @ back) <= 1e-15 * size


@pytest.mark.parametrize("rule", ["zero", "circular"])
def test_correlation_is_the_adjoint_where_no_border_rule_bends(rule, rng):
    for image_shape, kernel_shape in shapes("same", range(1, 6)):
        operator, kernel = operator_of(rng, image_shape, kernel_shape, "same", rule)
        result = whole_numbers(rng, image_shape)
        want = correlate(result, kernel, "same", rule)
        assert_array_equal(operator.rmatvec(result.ravel()), want.ravel())


def test_full_and_valid_are_each_others_adjoints(rng):
    for image_shape, kernel_shape in shapes("valid", range(1, 6)):
        operator, kernel = operator_of(rng, image_shape, kernel_shape, "full", "zero")
        result = whole_numbers(rng, np.add(image_shape, kernel_shape) - 1)
        want = correlate(result, kernel, "valid")
        assert_array_equal(operator.rmatvec(result.ravel()), want.ravel())
        operator = convolution_operator(kernel, image_shape, "valid")
        result = whole_numbers(rng, np.subtract(image_shape, kernel_shape) + 1)
        assert_array_equal(operator.rmatvec(result.ravel()), correlate(result, kernel).ravel())


def test_operator_keeps_float32(rng):
    kernel = rng.random((3, 3)).astype(np.float32)
    operator = convolution_operator(kernel, (9, 8), "same")
    assert operator.dtype == np.float32
    x = rng.random(72).astype(np.float32)
    for found in (operator.matvec(x), operator.rmatvec(x), operator @ x.reshape(-1, 1)):
        assert found.dtype == np.float32
    assert_array_equal(operator.matvec(x), convolve(x.reshape(9, 8), kernel, "same").ravel())


def test_an_image_comes_back_from_its_convolution(rng):
    """What operators are for: no matrix is ever made."""
    image, kernel = rng.random((12, 10)), rng.random((3, 4))
    operator = convolution_operator(kernel, image.shape)
    found = lsqr(operator, convolve(image, kernel).ravel(), atol=1e-14, btol=1e-14)[0]
    assert_allclose(found.reshape(image.shape), image, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_shape": (3, 0)}, ValueError, r"image_shape must be two positive integers"),
        ({"image_shape": 9}, ValueError, r"image_shape must be two positive integers.*got 9"),
        ({"mode": "all"}, ValueError, r"mode must be .*got 'all'"),
        ({"boundary": "reflect"}, ValueError, r"say 'symmetric' .* or 'mirror'"),
        ({"kernel": [[np.nan]]}, ValueError, r"kernel must be finite, got nan at index \(0, 0\)"),
        ({"kernel": KERNEL * 1j}, TypeError, r"kernel must hold real numbers"),
        (
            {"mode": "valid", "image_shape": (4, 9)},
            ValueError,
            r"kernel must fit inside the image for mode='valid': got \(5, 3\) for image \(4, 9\)",
        ),
        ({"workers": 0}, ValueError, r"workers must be a positive integer"),
    ],
)
def test_operator_refuses_arguments(options, error, message):
    given = {"kernel": KERNEL, "image_shape": (20, 30)} | options
    with pytest.raises(error, match=message):
        convolution_operator(**given)


def test_operator_refuses_vectors():
    operator = convolution_operator(KERNEL, (20, 30), "same")
    for call in (operator.matvec, operator.rmatvec):
        with pytest.raises(ValueError, match="dimension mismatch"):
            call(np.ones(599))
        with pytest.raises(ValueError, match=r"vector must be finite, got nan"):
            call(np.full(600, np.nan))


# Memory, threads


@pytest.mark.jit
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("engine", "taps", "mode", "rule"),
    [
        ("direct", 5, "same", "zero"),
        ("direct", 5, "full", "mirror"),
        ("separable", 15, "same", "zero"),
        ("fft", 31, "same", "circular"),
        ("auto", 63, "valid", "zero"),
    ],
)
def test_no_array_of_the_size_of_the_image_is_allocated(engine, taps, mode, rule, workers):
    image = np.ones((4096, 4096), np.float32)
    kernel = np.ones((taps, taps), np.float32)
    more = {"full": taps - 1, "same": 0, "valid": 1 - taps}[mode]
    out = np.zeros((4096 + more,) * 2, np.float32)
    options = {"method": engine, "workers": workers}
    convolve(image[:700, :900], kernel, mode, rule, **options)
    allocated = peak_of(lambda: convolve(image, kernel, mode, rule, out=out, **options))
    assert allocated < 8 * 2**20
    assert out[2000, 2000] == pytest.approx(taps**2)


@pytest.mark.jit
def test_a_mapped_file_is_read_and_written_tile_by_tile(tmp_path):
    image = np.memmap(tmp_path / "image", np.uint8, "w+", shape=(3000, 4000))
    image[2000:2010, 3000:3010] = 200
    out = np.memmap(tmp_path / "out", np.float64, "w+", shape=image.shape)
    allocated = peak_of(lambda: convolve(image, np.ones((3, 3)), "same", out=out))
    assert allocated < 8 * 2**20
    assert out.sum() == 100 * 200 * 9
    assert out[2005, 3005] == 9 * 200


@pytest.mark.jit
@pytest.mark.parametrize("boundary", ["zero", "circular", "mirror"])
@pytest.mark.parametrize("engine", ["direct", "separable"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_that_are_read_where_they_stand_give_what_copies_do(dtype, engine, boundary, rng):
    image, kernel = rng.random((300, 1150)).astype(dtype), np.outer([1, 2, 1, 3, 1], [1, 3, 2])
    image[130, 70] = image[200, 1023] = np.nan
    want = convolve(np.asfortranarray(image), kernel, "same", boundary, method=engine)
    frozen = image.copy()
    frozen.flags.writeable = False
    for source in (image, frozen):
        assert_array_equal(convolve(source, kernel, "same", boundary, method=engine), want)
    assert np.isnan(want).sum() == 2 * kernel.size
    rule = {"zero": "constant", "circular": "wrap", "mirror": "reflect"}[boundary]
    padded = np.pad(np.nan_to_num(image), ((2, 2), (1, 1)), rule)
    exact = signal.convolve2d(padded.astype(float), kernel, "valid")
    assert_allclose(want[~np.isnan(want)], exact[~np.isnan(want)], rtol=1e-5)


GUARD = """
import ctypes, mmap, sys
import numpy as np
from fastkernel import convolve

page = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

def guarded(shape, dtype, end):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for wall in (0, pages + 1):
        assert libc.mprotect(address + wall * page, page, 0) == 0
    offset = page + (pages * page - size if end else 0)
    return np.frombuffer(memory, np.uint8, size, offset).view(dtype).reshape(shape)

rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for shape in [(1, 1), (3, 5), (9, 33), (70, 1100), (64, 1024), (290, 1300)]:
        for p, q in [(1, 1), (3, 3), (2, 7), (12, 5)]:
            kernel = guarded((p, q), dtype, True)
            kernel[:] = np.outer(rng.random(p), rng.random(q))
            modes = [("same", (0, 0)), ("full", (p - 1, q - 1)), ("valid", (1 - p, 1 - q))]
            for mode, more in modes[: 3 if min(shape) > 12 else 2]:
                for end in (False, True):
                    image = guarded(shape, dtype, end)
                    image[:] = rng.random(shape)
                    out = guarded((shape[0] + more[0], shape[1] + more[1]), dtype, end)
                    for method in ("direct", "separable", "fft"):
                        border = "zero" if mode == "valid" else "mirror"
                        convolve(image, kernel, mode, border, method=method, out=out)
"""


@pytest.mark.jit
@pytest.mark.skipif(sys.platform != "linux", reason="guards pages through mprotect")
def test_nothing_outside_the_arrays_is_touched():
    subprocess.run([sys.executable, "-c", GUARD], timeout=120, check=True)


@pytest.mark.jit
def test_threads_may_call_at_once(rng):
    cases = [
        (rng.random((90 + 31 * i, 700 - 60 * i)), np.outer(rng.random(3 + i), rng.random(9 - i)))
        for i in range(8)
    ]
    want = {
        (i, engine): convolve(*cases[i], "same", method=engine, workers=1)
        for i, engine in itertools.product(range(8), ENGINES)
    }
    start, wrong = threading.Barrier(8), []

    def call(i):
        start.wait()
        for turn in range(8):
            number, engine = (i + turn) % 8, ENGINES[turn % 3]
            got = convolve(*cases[number], "same", method=engine, workers=1 + turn % 3)
            if not (got == want[number, engine]).all():
                wrong.append((number, engine))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_huge_taps_are_not_taken_for_a_product():
    kernel = np.array([[1e308, -1e308], [1e308, 1.2e308]])
    with pytest.raises(ValueError, match="kernel must be of rank one for method='separable'"):
        convolve(np.full((2, 2), 1e-300), kernel, "valid", method="separable")


def test_a_boundary_that_is_no_string():
    with pytest.raises(TypeError, match=r"boundary must be a string, or a number .*\['zero'\]"):
        convolve(np.ones((3, 3)), np.ones((3, 3)), "same", ["zero"])
