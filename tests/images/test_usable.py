"""Which pixels count: every way to say so, by the definition, and every way to say it wrongly."""

import hypothesis.extra.numpy as hnp
import naive
import numpy as np
import pytest
import weighted
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from shared import Dataset

from fastkernel import SingularFitError, estimate_kernel, normal_equations
from fastkernel._images.masks import parted
from fastkernel._images.pairs import Cleaned, Fitted, as_pairs, pair_of
from fastkernel._images.usable import PixelRules

IMAGE = np.random.default_rng(3).random((12, 15)) * 200 + 20
RESULT = np.random.default_rng(4).random((10, 13)) * 200 + 20
BAD = np.zeros(RESULT.shape, bool)
BAD[2, 3] = BAD[7, 0] = True
SOURCE_BAD = np.zeros(IMAGE.shape, bool)
SOURCE_BAD[4, 5] = SOURCE_BAD[11, 14] = True


def pair_with(source=IMAGE, result=RESULT, kernel_shape=(3, 3), boundary=None, **rules):
    return weighted.pair_with(source, result, kernel_shape, boundary, **rules)


def used_by(*args, **options):
    pair = pair_with(*args, **options)
    return np.ones(pair.window.shape, bool) if pair.used is None else pair.used


# Masks of the source.


@pytest.mark.parametrize(("mode", "boundary"), weighted.MODES)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (1, 5), (6, 5)])
def test_a_bad_source_pixel_leaves_out_what_its_kernel_reaches(mode, boundary, shape, rng):
    """Pixel by pixel: those that a border rule repeats are bad where they are repeated."""
    m, n = 9, 11
    for bad in (rng.random((m, n)) < 0.04, np.eye(m, n) > 0, np.arange(m * n).reshape(m, n) == 0):
        if mode == "valid" or (mode, boundary) == ("same", None):
            (i0, i1), (j0, j1) = (0, m - shape[0] + 1), (0, n - shape[1] + 1)
            rows, cols = (
                [[t + i for i in range(k)] for t in range(start, stop)]
                for start, stop, k in ((i0, i1, shape[0]), (j0, j1, shape[1]))
            )
        else:
            rows, cols = (
                naive.pixels_under(length, taps, mode, boundary or "zero")
                for length, taps in zip((m, n), shape, strict=True)
            )
        met = np.pad(bad, ((0, 1), (0, 1)))  # what stands beyond the frame is good
        want = np.array([[not met[np.ix_(r, c)].any() for c in cols] for r in rows])
        result = np.zeros(weighted.result_shape((m, n), shape, mode))
        image = np.zeros((m, n))
        assert_array_equal(used_by(image, result, shape, boundary, source_mask=bad), want)


@given(
    bad=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    where=st.sampled_from(weighted.MODES),
)
def test_the_definition_for_any_mask_and_shape(bad, shape, where):
    mode, boundary = where
    bare = mode == "valid" or where == ("same", None)
    if bare and (shape[0] > bad.shape[0] or shape[1] > bad.shape[1]):
        return
    result = np.zeros(weighted.result_shape(bad.shape, shape, mode))
    got = used_by(np.zeros(bad.shape), result, shape, boundary, source_mask=bad)
    assert_array_equal(~got.ravel(), weighted.reached(bad, shape, mode, boundary))


def test_tall_masks_are_read_strip_by_strip(rng):
    bad = rng.random((600, 9)) < 0.01
    got = used_by(np.zeros((600, 9)), np.zeros((597, 7)), (4, 3), source_mask=bad)
    assert_array_equal(~got.ravel(), weighted.reached(bad, (4, 3)))


# Masks and weights of the result.


@pytest.mark.parametrize(("mode", "boundary"), weighted.MODES)
def test_masks_and_weights_are_of_the_whole_result(mode, boundary, rng):
    shape = (2, 3)
    size = weighted.result_shape(IMAGE.shape, shape, mode)
    bad, weights = rng.random(size) < 0.1, rng.random(size) + 0.1
    weights[rng.random(size) < 0.1] = 0
    pair = pair_with(IMAGE, np.ones(size), shape, boundary, mask=bad, weights=weights)
    want = weighted.used_part(weights * ~bad, shape, mode, boundary)
    out = np.empty(want.shape)
    pair.load_weights(0, 0, out)
    assert_array_equal(out, want)
    assert pair.n_pixels == np.count_nonzero(want)
    assert pair.total_weight == pytest.approx(want.sum(), rel=1e-14)
    part = np.empty((3, 4))
    pair.load_weights(2, 1, part)
    assert_array_equal(part, want[2:5, 1:5])


@pytest.mark.parametrize(
    "mask",
    [BAD, BAD.tolist(), BAD.astype(np.uint8), BAD * np.int32(-4), np.asfortranarray(BAD)],
    ids=["bool", "list", "uint8", "flags", "Fortran"],
)
def test_masks_of_any_kind(mask):
    assert_array_equal(used_by(mask=mask), ~BAD)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32, ">f8", np.longdouble])
def test_weights_of_one_and_zero_are_a_mask(dtype):
    pair = pair_with(weights=(~BAD).astype(dtype))
    assert_array_equal(pair.used, ~BAD)
    assert pair.weights is None


def test_nothing_said_is_nothing_kept():
    """A pair whose masks are all False and whose weights are all 1 is read as any other."""
    none, ones = np.zeros(RESULT.shape, bool), np.ones(RESULT.shape)
    plain = {"mask": none, "source_mask": np.zeros(IMAGE.shape, int), "weights": ones}
    for rules in (plain, {**plain, "nan_policy": "omit", "saturation": (None, 1e9)}):
        pair = pair_with(**rules)
        assert pair.even
        assert pair.source is IMAGE
        assert pair.result is RESULT
        assert pair.n_pixels == pair.total_weight == RESULT.size
    assert estimate_kernel(IMAGE, RESULT, 3, **plain).kernel.tobytes() == (
        estimate_kernel(IMAGE, RESULT, 3).kernel.tobytes()
    )


@pytest.mark.parametrize("engine", ["auto", "integer", "float", "fft"])
def test_a_rim_that_is_not_fitted_may_be_bad(engine, rng):
    """What is masked there alone changes nothing, and is not looked at."""
    image = rng.integers(0, 256, IMAGE.shape).astype(np.uint8)
    result = np.pad(rng.integers(0, 256, RESULT.shape).astype(np.uint8), 1)
    rim = np.ones(image.shape, bool)
    rim[1:-1, 1:-1] = False
    want = normal_equations(image, result, 3)
    for rules in ({"mask": rim}, {"weights": ~rim * 1.0}):
        got = normal_equations(image, result, 3, engine=engine, **rules)
        assert_array_equal(got.gram, want.gram)
        assert_array_equal(got.moments, want.moments)
        assert (got.n_pixels, got.total_weight) == (want.n_pixels, want.n_pixels)


def test_zero_weights_and_masked_pixels_may_hold_anything():
    hurt, weights = RESULT.copy(), np.ones(RESULT.shape)
    hurt[2, 3], hurt[7, 0] = np.nan, np.inf
    weights[BAD] = 0
    assert_array_equal(used_by(result=hurt, weights=weights), ~BAD)
    weights[BAD] = np.nan
    assert_array_equal(used_by(result=hurt, weights=weights, mask=BAD), ~BAD)
    weights[BAD] = -1, np.inf
    assert_array_equal(used_by(result=hurt, weights=weights, mask=BAD), ~BAD)


# NaN, infinity and the ends of ranges.


def test_what_is_not_finite_is_left_out_where_asked():
    x, y, weights = IMAGE.copy(), RESULT.copy(), np.full(RESULT.shape, 2.0)
    x[4, 5], y[2, 3], weights[7, 1] = np.nan, -np.inf, np.nan
    want = np.ones(RESULT.shape, bool)
    want[2:5, 3:6] = want[2, 3] = want[7, 1] = False
    assert_array_equal(used_by(x, y, weights=weights, nan_policy="omit"), want)
    # Integers are finite.
    assert pair_with(IMAGE.astype(int), RESULT.astype(int), nan_policy="omit").even


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, ">u2", np.uint64])
def test_the_ends_of_integers(dtype):
    ends = np.iinfo(dtype)
    x, y = IMAGE.astype(dtype), RESULT.astype(dtype)
    y[2, 3], y[5, 5] = ends.max, ends.min
    x[4, 5], x[0, 0] = ends.max, ends.min  # a source pixel of 0 is what it is
    want = np.ones(RESULT.shape, bool)
    want[2, 3] = want[5, 5] = False
    want[2:5, 3:6] = False
    for x_as, y_as in ((x, y), (Dataset(x), Dataset(y))):
        assert_array_equal(used_by(x_as, y_as, saturation="auto"), want)
    # Limits of one's own are those of both.
    y[9, 12], x[11, 0] = ends.max - 1, ends.max - 2
    limits = used_by(x, y, saturation=(ends.min, ends.max - 2))
    want[9, 12] = want[9, 0] = False
    if x.dtype.itemsize < 8:  # beyond 2**53 neighbours are one number
        assert_array_equal(limits, want)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32])
def test_detectors_of_fewer_bits_than_their_files(bits, dtype):
    top = 2**bits - 1
    x, y = IMAGE.astype(dtype), RESULT.astype(dtype)
    y[2, 3] = top
    want = np.ones(RESULT.shape, bool)
    want[2, 3] = False
    assert_array_equal(used_by(x, y, saturation="auto"), want)
    y[5, 5] = top + 1  # one more than such a detector has
    assert used_by(x, y, saturation="auto").all()


def test_each_image_has_ends_of_its_own():
    x, y = IMAGE.astype(np.uint16), RESULT.astype(np.uint8)
    x[4, 5], y[2, 3] = 4095, 255
    x[0, 0] = 255
    want = np.ones(RESULT.shape, bool)
    want[2:5, 3:6] = want[2, 3] = False
    assert_array_equal(used_by(x, y, saturation="auto"), want)


@pytest.mark.parametrize(
    ("saturation", "bad"),
    [
        ((50, 200), (RESULT <= 50) | (RESULT >= 200)),
        ((None, 200.0), RESULT >= 200),
        ([50, None], RESULT <= 50),
        ((None, None), RESULT > 1e9),
    ],
)
def test_limits(saturation, bad):
    high = np.inf if saturation[1] is None else saturation[1]
    bad = bad | weighted.reached(high <= IMAGE, (3, 3)).reshape(bad.shape)
    assert 0.1 < bad.mean() < 0.9 or saturation == (None, None)
    assert_array_equal(used_by(saturation=saturation), ~bad)


def test_what_is_said_adds_up():
    """Masks given, masks carried, levels, NaN and weights of 0."""
    x, y = IMAGE.copy(), RESULT.copy()
    x[0, 14], y[9, 9] = np.nan, 5000
    weights = np.ones(RESULT.shape)
    weights[9, 0] = 0
    source = np.ma.array(x, mask=SOURCE_BAD)
    result = np.ma.array(y, mask=np.roll(BAD, 2, 1))
    rules = {"mask": BAD, "weights": weights, "saturation": (None, 4000), "nan_policy": "omit"}
    bad = BAD | np.roll(BAD, 2, 1) | (weights == 0)
    bad |= weighted.reached(SOURCE_BAD, (3, 3)).reshape(bad.shape)
    bad[0, 12] = bad[9, 9] = True
    assert_array_equal(used_by(source, result, **rules), ~bad)


# Images that carry masks.


class Data:
    """As NDData: no array, but it holds one, and a mask."""

    def __init__(self, data, mask):
        self.data, self.mask = data, mask


class Masked(np.ndarray):
    """As astropy's Masked: an array whose mask NumPy does not know."""

    @property
    def unmasked(self):
        return self.view(np.ndarray)


def masked(data, mask):
    found = data.view(Masked)
    found.mask = mask
    return found


CARRIERS = {
    "masked array": lambda data, mask: np.ma.array(data, mask=mask),
    "NDData": Data,
    "NDData, flags": lambda data, mask: Data(data, mask * 4),
    "NDData, lists": lambda data, mask: Data(data.tolist(), mask.tolist()),
    "NDData, slices": lambda data, mask: Data(Dataset(data), mask),
    "Masked": masked,
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_masks_that_images_carry(carrier):
    make = CARRIERS[carrier]
    assert_array_equal(used_by(result=make(RESULT, BAD)), ~BAD)
    want = ~weighted.reached(SOURCE_BAD, (3, 3)).reshape(BAD.shape)
    assert_array_equal(used_by(make(IMAGE, SOURCE_BAD)), want)
    assert_array_equal(used_by(make(IMAGE, SOURCE_BAD), make(RESULT, BAD)), want & ~BAD)
    none = np.zeros(RESULT.shape, bool)
    assert used_by(IMAGE, np.ma.array(RESULT, mask=none)).all()


@pytest.mark.parametrize("whole", [np.ma.array(RESULT, mask=True), Data(RESULT, True)])
def test_one_flag_for_all_pixels(whole):
    assert not used_by(result=whole).any()
    with pytest.raises(SingularFitError, match=r"0 pixels .*masked are left out"):
        estimate_kernel(IMAGE, whole, 3)


def test_taking_apart():
    pixels, mask = parted(np.ma.array(RESULT, mask=BAD, fill_value=3))
    assert_array_equal(pixels, RESULT)
    assert_array_equal(mask, BAD)
    assert type(pixels) is np.ndarray
    for plain in (RESULT, RESULT.tolist(), np.ma.array(RESULT), 3.0):
        assert parted(plain)[0] is plain
        assert parted(plain)[1] is None
    assert parted(Data(RESULT, None))[0] is RESULT
    # A row of a mask is that of all rows, as NumPy has it.
    assert_array_equal(parted(Data(RESULT, BAD[2]))[1], np.tile(BAD[2], (10, 1)))


def test_masked_lists_are_not_taken_without_their_masks():
    rows = list(np.ma.array(RESULT, mask=BAD))
    with pytest.raises(TypeError, match=r"result must not be masked, .* 2 pixels"):
        pair_with(result=rows)


@pytest.mark.parametrize("name", ["weights", "mask", "source_mask", "source_variance"])
def test_what_is_said_of_pixels_is_not_masked_itself(name):
    shape = IMAGE.shape if name.startswith("source") else RESULT.shape
    value = np.ma.array(np.ones(shape, float if name[-1] == "s" or "var" in name else bool))
    value[0, 0] = np.ma.masked
    with pytest.raises(TypeError, match=rf"{name} must not be masked, got a mask .* 1 pixels"):
        pair_with(**{name: value})


# Several pairs, and channels.


def test_several_pairs_have_masks_of_their_own():
    rules = PixelRules(
        mask=[None, BAD, None],
        source_mask=(SOURCE_BAD, None, None),
        weights=[None, None, np.full(RESULT.shape, 3.0)],
        source_variance=[2.0, SOURCE_BAD * 1.0, 0],
    )
    pairs = [
        pair_of(images, (3, 3), None) for images in as_pairs([IMAGE] * 3, [RESULT] * 3, None, rules)
    ]
    reached = weighted.reached(SOURCE_BAD, (3, 3)).reshape(BAD.shape)
    assert_array_equal(pairs[0].used, ~reached)
    assert_array_equal(pairs[1].used, ~BAD)
    assert pairs[2].used is None
    assert [pair.weights is None for pair in pairs] == [True, True, False]
    for pair, want in zip(pairs, (2.0, SOURCE_BAD, 0), strict=True):
        got = pair.source_variance[:, :]
        assert_array_equal(got[~SOURCE_BAD], np.broadcast_to(want, IMAGE.shape)[~SOURCE_BAD])
    one = PixelRules(source_variance=2.0).of(1, 3)
    assert one.source_variance == 2.0


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_channels_share_a_mask_or_have_their_own(axis, rng):
    x, y = (np.stack([image, image + 1, image + 2], axis) for image in (IMAGE, RESULT))
    each = rng.random((3, *RESULT.shape)) < 0.1
    weights = rng.random(RESULT.shape) + 1
    own = np.ma.array(x, mask=np.stack([SOURCE_BAD, SOURCE_BAD & False, SOURCE_BAD], axis))
    for mask, want in ((BAD, [BAD] * 3), (np.stack(list(each), axis), each)):
        rules = PixelRules(mask=mask, weights=weights, source_variance=4.0)
        pairs = [pair_of(part, (3, 3), None) for part in as_pairs(own, y, axis, rules)]
        reached = weighted.reached(SOURCE_BAD, (3, 3)).reshape(BAD.shape)
        for number, (pair, bad) in enumerate(zip(pairs, want, strict=True)):
            assert_array_equal(pair.used, ~(bad | reached * (number != 1)))
            assert_array_equal(pair.weights, weights)
            good = pair.used
            assert_array_equal(pair.result[:, :][~bad], (RESULT + number)[~bad])
            assert good.shape == RESULT.shape
            assert (pair.source_variance[:, :][~SOURCE_BAD] == 4).all()


# What is read, and what was.


def test_bad_pixels_read_as_zeros(rng):
    bad = rng.random(RESULT.shape) < 0.3
    hurt = np.where(bad, np.nan, RESULT)
    image = Cleaned(hurt, bad)
    want = np.where(bad, 0, RESULT)
    assert (image.shape, image.dtype, image.ndim, image.size) == (hurt.shape, hurt.dtype, 2, 130)
    rows, cols = np.array([[3], [1]]), np.array([[0, 5, 5]])
    for key in (np.s_[:, :], np.s_[2:5, 3:], np.s_[::2, ::-1], np.s_[4], (rows, cols)):
        assert_array_equal(image[key], want[key])
    assert_array_equal(image.good(), RESULT[~bad])
    assert np.isnan(hurt).sum() == bad.sum()  # the image is left alone
    for r, c in np.ndindex(3, 3):
        assert image[r, c] == want[r, c]


def test_more_pixels_that_read_as_zeros(rng):
    bad, more = rng.random((2, *RESULT.shape)) < 0.3
    assert Cleaned.of(RESULT, bad & ~bad) is RESULT
    once = Cleaned.of(RESULT, bad)
    twice = Cleaned.of(once, more)
    assert Cleaned.of(twice, bad & ~bad) is twice
    assert twice.image is RESULT
    assert_array_equal(once[:, :], np.where(bad, 0, RESULT))
    assert_array_equal(twice[:, :], np.where(bad | more, 0, RESULT))


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_fitted_pixels_of_the_result(mode):
    size = weighted.result_shape(IMAGE.shape, (3, 4), mode)
    bad = np.zeros(size, bool)
    bad[4, 6] = True
    result = np.ones(size)
    for boundary in (None, "mirror") if mode == "same" else (None,):
        want = ~bad
        if mode == "same" and boundary is None:
            want = np.zeros(size, bool)
            want[1:-1, 2:-1] = ~bad[1:-1, 2:-1]
        pair = pair_with(IMAGE, result, (3, 4), boundary, mask=bad)
        assert_array_equal(Fitted.of(pair).mask(), want)
        pair = pair_with(IMAGE, result, (3, 4), boundary)
        want[4, 6] = True
        assert_array_equal(Fitted.of(pair).mask(), want)


# Whatever is wrong is said.

REFUSED = {
    "mask of another shape": (
        {"mask": BAD[1:]},
        ValueError,
        r"mask must have the shape \(10, 13\) of result, one number a pixel, got \(9, 13\)",
    ),
    "source_mask of the result's shape": (
        {"source_mask": BAD},
        ValueError,
        r"source_mask must have the shape \(12, 15\) of source, .* got \(10, 13\)",
    ),
    "weights of another shape": (
        {"weights": 2.0},
        ValueError,
        r"weights must have the shape \(10, 13\) of result, .* got \(\)",
    ),
    "source_variance of another shape": (
        {"source_variance": RESULT},
        ValueError,
        r"source_variance must have the shape \(12, 15\) of source",
    ),
    "mask of real numbers": (
        {"mask": BAD * 1.0},
        TypeError,
        r"mask must be of bool, True where a pixel is bad \(or of integer flags, 0 where it is "
        r"good\), got dtype float64",
    ),
    "source_mask of text": (
        {"source_mask": [["bad"]]},
        TypeError,
        r"source_mask must be of bool, .* got dtype <U3",
    ),
    "complex weights": (
        {"weights": RESULT + 1j},
        TypeError,
        r"weights must be real numbers, got dtype complex128",
    ),
    "a negative weight": (
        {"weights": np.where(BAD, -1.0, 1.0)},
        ValueError,
        r"weights must be finite and at least 0, got -1\.0 at index \(2, 3\); 0 leaves a pixel out",
    ),
    "NaN among weights": (
        {"weights": np.where(BAD, np.nan, 1.0)},
        ValueError,
        r"weights must be finite and at least 0, got nan at index \(2, 3\)",
    ),
    "an infinite weight": (
        {"weights": np.where(BAD, np.inf, 1.0), "nan_policy": "omit"},
        ValueError,
        r"weights must be finite and at least 0, got inf at index \(2, 3\)",
    ),
    "a negative variance": (
        {"source_variance": np.where(SOURCE_BAD, -2.0, 1.0)},
        ValueError,
        r"source_variance must be .* at least 0, got -2\.0 at index \(4, 5\); mask such pixels",
    ),
    "unknown nan_policy": (
        {"nan_policy": "propagate"},
        ValueError,
        r"nan_policy must be one of 'raise', 'omit', got 'propagate'",
    ),
    "saturation of one number": (
        {"saturation": 255},
        TypeError,
        r"saturation must be None, 'auto' or \(low, high\), got 255; None stands for an end",
    ),
    "saturation of three": ({"saturation": (0, 1, 2)}, TypeError, r"saturation must be None, 'au"),
    "saturation of a word": ({"saturation": "both"}, TypeError, r"saturation must .*got 'both'"),
    "saturation of words": (
        {"saturation": ("a", "b")},
        TypeError,
        r"an end of saturation must be a number, got 'a'",
    ),
    "saturation upside down": (
        {"saturation": (255, 0)},
        ValueError,
        r"saturation must be \(low, high\) with low < high, got \(255, 0\)",
    ),
    "saturation at infinity": (
        {"saturation": (0, np.inf)},
        ValueError,
        r"an end of saturation must be finite, got inf",
    ),
    "ends of real numbers": (
        {"saturation": "auto"},
        ValueError,
        r"saturation='auto' needs a result of integers, whose range ends, got dtype float64; pass",
    ),
    "ends of a real source": (
        {"saturation": "auto", "result": RESULT.astype(np.uint8)},
        ValueError,
        r"saturation='auto' needs a source of integers, .* got dtype float64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_message(case):
    options, error, message = REFUSED[case]
    asked = {"source": IMAGE, "result": RESULT, "kernel_shape": 3, **options}
    # Equations know no variance of the source.
    for call in (estimate_kernel, normal_equations)[: 1 if "source_variance" in options else 2]:
        with pytest.raises(error, match=message):
            call(**asked)


@pytest.mark.parametrize("name", ["mask", "source_mask", "weights", "source_variance"])
@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([None], r"list of 1"),
        (np.zeros((2, 10, 13)), r"ndarray of 2"),
        ((None,) * 3, r"tuple of 3"),
        (np.float64(3), r"float64"),
    ],
)
def test_one_for_every_pair(name, value, what):
    if name == "source_variance" and np.ndim(value) == 0:
        return
    message = rf"{name} must be a sequence of 2, one for every pair, got {what}; None stands"
    with pytest.raises(ValueError, match=message):
        estimate_kernel([IMAGE] * 2, [RESULT] * 2, 3, **{name: value})


@pytest.mark.parametrize("rules", [{}, {"background": 0}, {"background": 2}])
@pytest.mark.parametrize("name", ["mask", "source_mask", "weights", "nan"])
def test_everything_masked(name, rules):
    shape = IMAGE.shape if name.startswith("source") else RESULT.shape
    options = {name: np.full(shape, name != "weights")}
    result = RESULT
    if name == "nan":
        options, result = {"nan_policy": "omit"}, np.full(RESULT.shape, np.nan)
    with pytest.raises(SingularFitError, match="masked are left out"):
        estimate_kernel(IMAGE, result, 3, **options, **rules)


def test_pixels_that_do_not_determine_a_background():
    """One row of pixels tells nothing of how a background varies from row to row."""
    mask = np.ones(IMAGE.shape, bool)
    mask[4] = False
    assert estimate_kernel(IMAGE, 2 * IMAGE + 1, 1, mask=mask, background=0).background == 1
    with pytest.raises(SingularFitError, match=r"a background of degree 1: too few pixels"):
        estimate_kernel(IMAGE, 2 * IMAGE, 1, mask=mask, background=1)


@pytest.mark.parametrize("mask", [[BAD, None, None], [None, None, BAD], [BAD] * 3])
def test_the_pair_that_is_not_finite_is_named(mask):
    hurt = IMAGE.copy()
    hurt[7, 9] = np.nan
    message = r"source\[2\] must be finite, got nan at index \(7, 9\)"
    with pytest.raises(ValueError, match=message):
        normal_equations([IMAGE, IMAGE, hurt], [RESULT] * 3, 3, mask=mask)


def test_a_mask_that_does_not_fit_its_image():
    message = r"an image's mask must have its shape \(10, 13\), got \(9, 13\)"
    with pytest.raises(ValueError, match=message):
        estimate_kernel(IMAGE, Data(RESULT, BAD[1:]), 3)
