"""The equations equal their definition bit for bit, whatever is read and however."""

import contextlib
import itertools
import weakref

import hypothesis.extra.numpy as hnp
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from shared import JIT

from fastkernel import NormalEquations, inverse_kernel, normal_equations

SIDES = range(1, 13) if JIT else range(1, 6)
TAPS = range(1, 7) if JIT else range(1, 4)
DTYPES = [
    *(np.dtype(c) for c in "?bBhHiIlLqQefdg"),
    np.dtype(">f8"),
    np.dtype(">f4"),
    np.dtype(">u2"),
]


def exact_equations(image, result, shape):
    """By an engine that does not round whole numbers."""
    engine = "float" if image.dtype.kind == "f" else "auto"
    return normal_equations(image, result, shape, engine=engine)


def check(got, image, result, shape):
    x, y = naive.design_matrix(image.astype(float), shape), result.astype(float).ravel()
    assert_array_equal(got.gram, x.T @ x)
    assert_array_equal(got.moments, x.T @ y)
    assert (got.energy, got.n_pixels, got.kernel_shape) == (y @ y, y.size, shape)


# The transforms round; their sums of narrow integers are then rounded to what they must be.
EXACT = [("integer", np.uint8), ("float", np.float64), ("float", np.uint8), ("fft", np.uint8)]


@pytest.mark.parametrize(("engine", "dtype"), EXACT)
@pytest.mark.parametrize("rows", SIDES)
def test_equals_the_definition_for_every_small_shape(rows, engine, dtype, rng, small_tiles):
    workers = itertools.cycle(range(1, 5))
    for cols, p, q in itertools.product(SIDES, TAPS, TAPS):
        if p > rows or q > cols:
            continue
        image = rng.integers(0, 256, (rows, cols)).astype(dtype)
        result = rng.integers(0, 256, (rows - p + 1, cols - q + 1)).astype(dtype)
        got = normal_equations(image, result, (p, q), engine=engine, workers=next(workers))
        check(got, image, result, (p, q))


@pytest.mark.parametrize(
    ("engine", "dtype"), [*EXACT, ("auto", np.int8), ("fft", np.int8), ("float", np.uint16)]
)
@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (5, 4), (1, 9), (7, 2), (11, 13)])
def test_equals_the_definition_in_whole_tiles(kernel_shape, engine, dtype, rng):
    p, q = kernel_shape
    info = np.iinfo(dtype if dtype is not np.float64 else np.int16)
    shape = (40, 75) if JIT else (14, 21)
    image = rng.integers(info.min, info.max + 1, shape).astype(dtype)
    result = rng.integers(info.min, info.max + 1, (shape[0] - p + 1, shape[1] - q + 1))
    result = result.astype(dtype)
    got = normal_equations(image, result, kernel_shape, engine=engine)
    check(got, image, result, kernel_shape)


@pytest.mark.parametrize(
    "shape", [(40, 75), (260, 31), (7, 600)] if JIT else [(20, 25), (40, 13), (7, 60)]
)
@pytest.mark.parametrize("kernel_shape", [(1, 1), (3, 3), (5, 4), (1, 9), (7, 2), (6, 13)])
def test_transforms_round_to_the_definition(shape, kernel_shape, rng, small_tiles):
    p, q = kernel_shape
    image = rng.standard_normal(shape)
    result = rng.standard_normal((shape[0] - p + 1, shape[1] - q + 1))
    got = normal_equations(image, result, kernel_shape, engine="fft", workers=2)
    x, y = naive.design_matrix(image, kernel_shape), result.ravel()
    assert_allclose(got.gram, x.T @ x, rtol=0, atol=1e-14 * np.abs(x.T @ x).max())
    assert_allclose(got.moments, x.T @ y, rtol=0, atol=1e-14 * np.sqrt((x.T @ x)[0, 0] * (y @ y)))
    assert got.energy == pytest.approx(y @ y, rel=1e-14)


def test_rounded_sums_stay_below_the_bound(rng):
    """The error of transforms of whole numbers, against the bound that lets them be rounded."""
    from fastkernel._images.pairs import Pair
    from fastkernel.estimation.equations import gathering_cost as _cost
    from fastkernel.estimation.equations import row_jobs

    image = rng.integers(0, 256, (300, 700)).astype(np.uint8)
    result = rng.integers(0, 256, (294, 694)).astype(np.uint8)
    whole = normal_equations(image, result, (7, 7), engine="integer")
    raw = normal_equations(image.astype(float), result, (7, 7), engine="fft")
    error = np.abs(raw.moments - whole.moments).max()
    # The largest number of pixels for which the rule would still round, scaled to this image's.
    n_pixels = 300 * 700 * 2
    limit = next(
        n for n in 2.0 ** np.arange(20, 60) if not _cost.fft_sums_are_exact(n, 255**2, 256)
    )
    assert error < 0.25 * n_pixels / limit
    tiles = np.array([[128]]).repeat(9, axis=1)
    for source, rows, exact in ((image, 128, True), (image, 2**40, False), (raw.gram, 128, False)):
        reader = row_jobs.RowReader(Pair(source, result, None), (7, 7), None, (), (0, 0))
        tiles[:, 8] = rows
        assert row_jobs.FftJob(reader, tiles, 256)._is_exact() == exact


pixels = st.integers(-9, 9).map(float)
sizes = st.integers(1, 6)


@st.composite
def image_pairs(draw):
    p, q, height, width = draw(st.tuples(sizes, sizes, sizes, sizes))
    dtype = draw(st.sampled_from([np.float64, np.int8]))
    image = draw(hnp.arrays(dtype, (height + p - 1, width + q - 1), elements=st.integers(-9, 9)))
    result = draw(hnp.arrays(dtype, (height, width), elements=st.integers(-9, 9)))
    return image, result, (p, q)


@given(pair=image_pairs())
def test_equals_the_definition(pair):
    image, result, shape = pair
    check(exact_equations(image, result, shape), image, result, shape)


@given(pair=image_pairs(), cut=st.floats(0, 1))
def test_equations_of_parts_add_up(pair, cut):
    image, result, (p, q) = pair
    row = int(cut * result.shape[0])
    parts = [
        exact_equations(image[top : bottom + p - 1], result[top:bottom], (p, q))
        for top, bottom in ((0, row), (row, result.shape[0]))
        if bottom > top
    ]
    total = sum(parts, NormalEquations.zero((p, q)))
    check(total, image, result, (p, q))


@given(pair=image_pairs(), data=st.data())
def test_crop_is_the_fit_of_a_smaller_kernel_on_the_same_pixels(pair, data):
    image, result, (p, q) = pair
    a = data.draw(st.integers(1, p))
    b = data.draw(st.integers(1, q))
    cropped = exact_equations(image, result, (p, q)).crop((a, b))
    # The centre tap stays the centre tap: fewer taps see fewer pixels around the same one.
    top = (p - 1 - (p - 1) // 2) - (a - 1 - (a - 1) // 2)
    left = (q - 1 - (q - 1) // 2) - (b - 1 - (b - 1) // 2)
    window = image[top : top + result.shape[0] + a - 1, left : left + result.shape[1] + b - 1]
    check(cropped, window, result, (a, b))


@pytest.mark.parametrize(
    ("mode", "boundary"),
    [
        *(("same", rule) for rule in (None, *naive.PAD_MODES)),
        *(("valid", rule) for rule in (None, "mirror")),
        *(("full", rule) for rule in (None, "zero")),
    ],
)
@pytest.mark.parametrize(("engine", "dtype"), EXACT)
def test_every_mode_and_border_rule(mode, boundary, engine, dtype, rng, small_tiles):
    for m, n, p, q in [(6, 7, 3, 3), (7, 5, 4, 2), (5, 8, 1, 5), (3, 3, 6, 6), (4, 1, 5, 3)]:
        bare = mode == "valid" or (mode == "same" and boundary is None)
        if bare and (p > m or q > n):
            continue
        image = rng.integers(0, 256, (m, n)).astype(dtype)
        larger = image.astype(float)
        if not bare:
            larger = naive.extended(larger, (p, q), mode, boundary or "zero")
        used = rng.integers(0, 256, (larger.shape[0] - p + 1, larger.shape[1] - q + 1))
        result = used.astype(dtype)
        if mode == "same" and boundary is None:
            i, j = (p - 1) // 2, (q - 1) // 2
            result = np.pad(result, ((p - 1 - i, i), (q - 1 - j, j)), constant_values=7)
        for workers in (1, 3):
            got = normal_equations(
                image, result, (p, q), boundary=boundary, engine=engine, workers=workers
            )
            check(got, larger, used, (p, q))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_real_dtype(dtype, rng):
    largest = 1 if dtype.kind == "b" else 99
    image = rng.integers(0, largest + 1, (9, 11)).astype(dtype)
    result = rng.integers(0, largest + 1, (7, 10)).astype(dtype)
    check(normal_equations(image, result, (3, 2), engine="float"), image, result, (3, 2))


def layouts(image):
    misaligned = np.empty(image.nbytes + 1, np.uint8)[1:].view(image.dtype).reshape(image.shape)
    misaligned[:] = image
    wide = np.zeros((2 * image.shape[0], 3 * image.shape[1]), image.dtype)
    wide[::2, ::3] = image
    yield from (
        np.asfortranarray(image),
        image[::-1, ::-1].copy()[::-1, ::-1],
        wide[::2, ::3],
        image.astype(image.dtype.newbyteorder()),
        misaligned,
        image.tolist(),
    )


@pytest.mark.parametrize("engine", ["auto", "fft"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_layout_changes_no_bit(dtype, engine, rng):
    image, result = ((rng.random(shape) * 200).astype(dtype) for shape in ((40, 61), (38, 57)))
    want = normal_equations(image, result, (3, 5), engine=engine)
    for x, y in zip(layouts(image), layouts(result), strict=True):
        got = normal_equations(x, y, (3, 5), engine=engine)
        if isinstance(x, list) and dtype is np.uint8:  # a list of whole numbers has another dtype
            continue
        assert_array_equal(got.gram, want.gram)
        assert_array_equal(got.moments, want.moments)
        assert got.energy == want.energy


@pytest.mark.jit
@pytest.mark.parametrize(("engine", "dtype"), [*EXACT, ("float", np.float32), ("fft", np.float32)])
def test_workers_change_no_bit(engine, dtype, rng):
    image = (rng.random((700, 1300)) * 255).astype(dtype)
    result = (rng.random((694, 1295)) * 255).astype(dtype)
    want = normal_equations(image, result, (7, 6), engine=engine, workers=1)
    for workers in (2, 3, 4, None):
        got = normal_equations(image, result, (7, 6), engine=engine, workers=workers)
        assert_array_equal(got.gram, want.gram)
        assert_array_equal(got.moments, want.moments)
        assert got.energy == want.energy


@pytest.mark.jit
@pytest.mark.parametrize("engine", ["integer", "fft"])
def test_the_brightest_image_stays_exact(engine):
    image = np.full((600, 1100), 255, np.uint8)
    got = normal_equations(image, image[2:, 2:], (3, 3), engine=engine)
    assert (got.gram == 255.0**2 * 598 * 1098).all()
    assert (got.moments == 255.0**2 * 598 * 1098).all()
    assert got.energy == 255.0**2 * 598 * 1098


def test_sequences_and_channels_share_one_kernel(rng):
    images = [rng.integers(0, 256, shape, np.uint8) for shape in ((9, 8), (6, 11))]
    results = [image[2:, 1:] for image in images]
    want = sum(
        (normal_equations(*pair, (3, 2)) for pair in zip(images, results, strict=True)),
        NormalEquations.zero((3, 2)),
    )
    for got in (
        normal_equations(images, results, (3, 2)),
        normal_equations(tuple(images), tuple(results), (3, 2)),
    ):
        assert_array_equal(got.gram, want.gram)
        assert got.n_pixels == want.n_pixels
    colour = rng.integers(0, 256, (9, 8, 3), np.uint8)
    shared = sum(
        (normal_equations(colour[..., i], colour[2:, 1:, i], (3, 2)) for i in range(3)),
        NormalEquations.zero((3, 2)),
    )
    for axis in (0, 1, 2, -1):
        x, y = (np.moveaxis(z, 2, axis) for z in (colour, colour[2:, 1:]))
        got = normal_equations(x, y, (3, 2), channel_axis=axis)
        assert_array_equal(got.gram, shared.gram)
        assert_array_equal(got.moments, shared.moments)


def test_inputs_are_not_written_to(rng):
    image, result = rng.random((12, 12)), rng.random((10, 10))
    for array in (image, result):
        array.flags.writeable = False
    normal_equations(image, result, (3, 3))


@given(pair=image_pairs())
def test_gram_is_symmetric(pair):
    gram = normal_equations(*pair).gram
    assert_array_equal(gram, gram.T)


def test_saved_equations_come_back(tmp_path, rng):
    want = normal_equations(rng.random((9, 8)), rng.random((7, 7)), (3, 2))
    want.save(tmp_path / "equations.npz")
    got = NormalEquations.load(tmp_path / "equations.npz")
    assert_array_equal(got.gram, want.gram)
    assert_array_equal(got.moments, want.moments)
    assert (got.energy, got.n_pixels, got.kernel_shape) == (want.energy, 49, (3, 2))
    assert isinstance(got.n_pixels, int)


def test_refuses_to_load_what_it_did_not_save(tmp_path, rng):
    path = tmp_path / "equations.npz"
    pattern = "does not hold normal equations"
    fields = {"moments": np.zeros(4), "energy": 0.0, "n_pixels": 1, "kernel_shape": (2, 2)}
    for gram in (np.zeros((3, 3)), np.zeros((4, 4), np.float32), np.array([{}], dtype=object)):
        np.savez(path, gram=gram, **fields)
        with pytest.raises(ValueError, match=pattern):
            NormalEquations.load(path)
    np.savez(path, gram=np.zeros((4, 4)))
    with pytest.raises(ValueError, match=pattern):
        NormalEquations.load(path)
    for content in (b"", b"nonsense", b"PK\x03\x04 and nothing more"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=pattern):
            NormalEquations.load(path)
    with pytest.raises(FileNotFoundError):
        NormalEquations.load(tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gram": np.full((4, 4), np.nan)}, "not finite"),
        ({"moments": np.full(4, np.inf)}, "not finite"),
        ({"gram": np.triu(np.ones((4, 4)))}, "no sum of squares"),
        ({"gram": -np.eye(4)}, "no sum of squares"),
        ({"n_pixels": -5}, "n_pixels is -5"),
        ({"n_pixels": np.inf}, "n_pixels is an array"),
        ({"background_terms": -1}, "background_terms is -1"),
        ({"energy": -1.0}, "energy is -1.0"),
        ({"energy": np.nan}, "energy is nan"),
        ({"energy": np.ones(2)}, "energy is an array"),
        ({"kernel_shape": (2.5, 2)}, "kernel_shape"),
    ],
)
def test_refuses_to_load_numbers_that_no_save_wrote(tmp_path, changed, words):
    path = tmp_path / "equations.npz"
    fields = {"gram": np.eye(4), "moments": np.zeros(4), "energy": 0.0, "n_pixels": 1}
    np.savez(path, **{**fields, "kernel_shape": (2, 2), **changed})
    with pytest.raises(ValueError, match=f"does not hold normal equations.*{words}"):
        NormalEquations.load(path)


def test_refuses_to_load_a_damaged_file(tmp_path, rng):
    """A byte of the archive's structure at a time; changed numbers may be taken or refused."""
    path = tmp_path / "equations.npz"
    normal_equations(rng.random((9, 8)), rng.random((8, 7)), 2).save(path)
    good = path.read_bytes()
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 77]) + good[place + 1 :])
        with contextlib.suppress(ValueError):
            NormalEquations.load(path)


def test_shows_itself_without_its_matrix(rng):
    text = repr(normal_equations(rng.random((40, 40)), rng.random((32, 32)), 9))
    assert "kernel_shape=(9, 9), n_pixels=1024, energy=" in text
    assert len(text) < 120


def test_refuses_to_join_different_kernels():
    with pytest.raises(ValueError, match=r"kernels \(3, 3\) and \(5, 5\)"):
        NormalEquations.zero((3, 3)) + NormalEquations.zero((5, 5))
    with pytest.raises(TypeError):
        NormalEquations.zero((3, 3)) + 1


def test_refuses_to_crop_to_a_larger_kernel():
    with pytest.raises(ValueError, match=r"must fit inside \(3, 3\), got \(3, 4\)"):
        NormalEquations.zero((3, 3)).crop((3, 4))


def test_callback_counts_up_and_can_stop(rng, small_tiles):
    image = rng.random((20, 20))
    seen = []
    normal_equations(image, image, (3, 3), callback=lambda *step: seen.append(step), workers=2)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 5

    def stop(done, total):
        raise InterruptedError(done)

    with pytest.raises(InterruptedError):
        normal_equations(image, image, (3, 3), callback=stop, workers=2)


def test_sum_joins_equations(rng):
    images = rng.random((3, 9, 10))
    parts = [normal_equations(x, x, (2, 3)) for x in images]
    got, want = sum(parts), parts[0] + parts[1] + parts[2]
    assert_array_equal(got.gram, want.gram)
    assert_array_equal(got.moments, want.moments)
    assert (got.energy, got.n_pixels) == (want.energy, want.n_pixels)
    for other in (1, 0.0, None):
        with pytest.raises(TypeError, match="unsupported operand"):
            other + parts[0]


def test_answers_can_be_referred_to_weakly(rng):
    image = rng.random((9, 10))
    equations = normal_equations(image, image, 3)
    for answer in (equations, equations.solve(), inverse_kernel(np.eye(3), 3, ridge=1.0)):
        assert weakref.ref(answer)() is answer
