"""What takes images takes them of every dtype and layout, and leaves them as they were.

Every public function and every argument of it that holds pixels or taps is tried with every real
dtype and every layout: the answer is bit for bit that of the same pixels in C order, and that of
the same pixels as float64 up to rounding. All arguments of a call have the dtype, but for masks,
and each a layout of its own. What takes no time is tried with every pair of a dtype and a layout;
of the others each dtype takes its share of the layouts, and every layout is met by some dtype.
Lists, rows that are one row, and dtypes that are refused are tried apart, the latter two argument
by argument.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

import fastkernel

pytestmark = pytest.mark.jit

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">u2", ">i4"]
DTYPES = ["?", *INTEGERS, "f2", "f4", "f8", "g", ">f4", ">f8"]
REFUSED = ["c8", "c16", "O", "M8[s]", "U"]

SHAPE = 24, 31
QUICK, SLOW = 1, 12
TAPS = np.array([[0, 1, 0], [1, 2, 1], [1, 0, 1]])


# Images


def noisy(exact, rng, largest):
    """Whole numbers that no kernel explains to the last digit; bits, some of which are wrong."""
    if largest == 1:
        return exact != (rng.random(exact.shape) < 0.1)
    return exact + rng.integers(0, 4, exact.shape)


def pixels(largest, shape=SHAPE):
    return np.random.default_rng(1).integers(0, largest + 1, shape)


def pair(largest, shape=SHAPE):
    """A source and a result of its frame, of few enough levels for every dtype."""
    rng = np.random.default_rng(2)
    source = rng.integers(0, largest + 1, shape)
    kernel = TAPS if largest > 1 else np.eye(3)[1:2]
    kernel = kernel.reshape((1,) * (len(shape) - 2) + kernel.shape)
    result = np.rint(signal.convolve(source, kernel, "same"))
    return {"source": source, "result": noisy(result, rng, largest)}


def stack(largest):
    return pair(largest, (3, *SHAPE))


def stacks(largest):
    source, result = stack(largest).values()
    return {"sources": source, "results": result}


def uneven_pair(largest):
    """A pair, what its pixels weigh, and which are bad."""
    rng = np.random.default_rng(3)
    return pair(largest) | {
        "weights": rng.integers(0, largest + 1, SHAPE),
        "mask": rng.random(SHAPE) < 0.1,
        "source_mask": rng.random(SHAPE) < 0.01,
    }


def blurred(largest):
    """An image that a PSF blurred, on a ground that is not dark."""
    image = pixels(largest)
    if largest > 1:
        image = np.rint(signal.convolve(image, TAPS, "same")) + 5
    return {"image": image, "psf": TAPS if largest > 1 else TAPS > 0}


def sky(largest):
    """Stars of two seeings."""
    rng = np.random.default_rng(4)
    stars = np.zeros((60, 64))
    stars.flat[rng.choice(stars.size, 60, replace=False)] = rng.uniform(100, 700, 60)
    found = {}
    for name, sigma in [("science", 1.5), ("reference", 1.0)]:
        blur = fastkernel.psf.gaussian(9, sigma)
        image = signal.convolve(stars, blur, "same") + rng.normal(10, 1.5, stars.shape)
        found[name] = np.clip(np.rint(image), 0, 120)
        found[f"{name}_mask"] = rng.random(stars.shape) < 0.002
        found[f"{name}_variance"] = np.full(stars.shape, 2)
    if largest > 1:
        return found
    return {
        name: image if "mask" in name else image > 14
        for name, image in found.items()
        if "variance" not in name
    }


# Functions


class Case(NamedTuple):
    """A call, its images by the largest level, and how many dtypes share the layouts."""

    call: Callable
    images: Callable
    share: int = 6

    @property
    def slow(self):
        return self.share == SLOW


def calling(name, *args, **options):
    return functools.partial(getattr(fastkernel, name), *args, **options)


def pixels_and_taps(largest):
    return {"image": pixels(largest), "kernel": TAPS if largest > 1 else TAPS > 0}


def taps(largest):
    return {"kernel": TAPS if largest > 1 else TAPS > 0}


def image_alone(largest):
    return {"image": pixels(largest)}


def pair_and_kernel(largest):
    return pair(largest) | taps(largest)


def separable(largest):
    return {"image": pixels(largest), "kernel": np.outer([1, 1, 1], [1, 0, largest, 1])}


def channels(largest):
    return {"image": pixels(largest, (3, *SHAPE)), **taps(largest)}


def restored_channels(largest):
    image, psf = blurred(largest).values()
    return {"image": np.stack([image, image[::-1], image[:, ::-1]]), "psf": np.stack([psf] * 3)}


def weighed_blur(largest):
    return blurred(largest) | {"weights": pixels(largest)[::-1]}


def uneven_field(largest):
    """As `uneven_pair`, but weights that leave enough of it."""
    return pair(largest) | {"weights": 1 + pixels(largest) // 2 if largest > 1 else np.ones(SHAPE)}


def variances(largest):
    return pair(largest) | {"source_variance": np.random.default_rng(5).random(SHAPE) < 0.02}


def single_parts(largest):
    """What `KernelFit.predict` and its kin take."""
    return {"source": pair(largest)["source"]}


@functools.cache
def fitted(largest):
    return fastkernel.estimate_kernel(**pair(largest), kernel_shape=3)


def predicted(source):
    return fitted(9).predict(source)


def field_predicted(source):
    return fitted_field().predict(source)


@functools.cache
def fitted_field():
    return fastkernel.estimate_kernel_field(**pair(9), kernel_shape=3, degree=1)


def operator_of(kernel):
    operator = fastkernel.convolution_operator(kernel, SHAPE, "same", "mirror")
    ones = pixels(9).ravel()
    return operator.matvec(ones), operator.rmatvec(ones)


TILED = {"tile_shape": (16, 16), "num_iter": 5, "acceleration": False}

CASES = {
    "convolve": Case(calling("convolve", mode="same", boundary="mirror"), pixels_and_taps, QUICK),
    "convolve separable": Case(calling("convolve", method="separable"), separable, QUICK),
    "convolve fft": Case(calling("convolve", method="fft"), pixels_and_taps),
    "convolve channels": Case(calling("convolve", channel_axis=0), channels, QUICK),
    "correlate": Case(calling("correlate", mode="valid"), pixels_and_taps, QUICK),
    "convolution_matrix": Case(calling("convolution_matrix", image_shape=(5, 6)), taps),
    "convolution_operator": Case(operator_of, taps),
    "design_matrix": Case(calling("design_matrix", kernel_shape=3), image_alone, QUICK),
    "circshift": Case(calling("circshift", shift=(3, -5)), image_alone, QUICK),
    "fftshift": Case(calling("fftshift"), image_alone, QUICK),
    "ifftshift": Case(calling("ifftshift"), image_alone, QUICK),
    "estimate_kernel": Case(calling("estimate_kernel", kernel_shape=3), pair),
    "estimate_kernel auto": Case(
        calling("estimate_kernel", kernel_shape=3, boundary="auto", background="auto"), pair, SLOW
    ),
    "estimate_kernel float": Case(calling("estimate_kernel", kernel_shape=3, engine="float"), pair),
    "estimate_kernel fft": Case(calling("estimate_kernel", kernel_shape=3, engine="fft"), pair),
    "estimate_kernel channels": Case(
        calling("estimate_kernel", kernel_shape=3, channel_axis=0), stack
    ),
    "estimate_kernel uneven": Case(calling("estimate_kernel", kernel_shape=3), uneven_pair),
    "estimate_kernel variance": Case(calling("estimate_kernel", kernel_shape=3), variances, SLOW),
    "estimate_kernel by fft": Case(calling("estimate_kernel", kernel_shape=3, method="fft"), pair),
    "estimate_kernel by lad": Case(
        calling("estimate_kernel", kernel_shape=3, method="lad"), pair, SLOW
    ),
    "estimate_kernel by richardson_lucy": Case(
        calling("estimate_kernel", kernel_shape=3, method="richardson_lucy", num_iter=9), pair
    ),
    "normal_equations": Case(calling("normal_equations", kernel_shape=3), pair),
    "normal_equations uneven": Case(
        calling("normal_equations", kernel_shape=3, background=1), uneven_pair, SLOW
    ),
    "residual_equations": Case(calling("residual_equations"), pair_and_kernel),
    "estimate_kernels": Case(calling("estimate_kernels", kernel_shape=3), stacks),
    "estimate_kernel_field": Case(
        calling("estimate_kernel_field", kernel_shape=3, degree=1), pair, SLOW
    ),
    "estimate_kernel_field uneven": Case(
        calling("estimate_kernel_field", kernel_shape=3, grid=2, tile=8), uneven_field, SLOW
    ),
    "select_kernel_shape": Case(calling("select_kernel_shape", largest=5), pair, SLOW),
    "inverse_kernel": Case(calling("inverse_kernel", shape=5), taps, SLOW),
    "inverse_filter": Case(calling("inverse_filter", epsilon=0.1, guarded=True), blurred),
    "wiener": Case(calling("wiener"), blurred, SLOW),
    "wiener unknown": Case(calling("wiener", balance=0.1, boundary="unknown"), blurred, SLOW),
    "wiener channels": Case(calling("wiener", channel_axis=0), restored_channels, SLOW),
    "gcv_balance": Case(calling("gcv_balance"), blurred, QUICK),
    "richardson_lucy": Case(calling("richardson_lucy", num_iter=5), blurred),
    "richardson_lucy weights": Case(calling("richardson_lucy", num_iter=5), weighed_blur),
    "restore_tiled": Case(
        calling("restore_tiled", fastkernel.richardson_lucy, **TILED), blurred, SLOW
    ),
    "match_images": Case(
        calling("match_images", kernel_shape=5, degree=0, adapt_degree=False), sky, SLOW
    ),
    "KernelFit.predict": Case(predicted, single_parts, QUICK),
    "KernelField.predict": Case(field_predicted, single_parts),
}


def arrays_in(answer):
    """The numbers of an answer, one array a part."""
    if isinstance(answer, tuple):
        return [part for one in answer for part in arrays_in(one)]
    if hasattr(answer, "toarray"):
        return [answer.toarray()]
    if isinstance(answer, fastkernel.KernelFit):
        return [answer.kernel, answer.standard_errors, np.array(answer.residual_rms)]
    if isinstance(answer, fastkernel.ImageMatch):
        return [answer.difference, answer.variance, answer.flags, answer.field.coefficients]
    if isinstance(answer, fastkernel.InverseFit):
        return [answer.kernel, np.array(answer.residual)]
    if isinstance(answer, fastkernel.KernelField):
        return [answer.coefficients, np.array(answer.residual_rms)]
    if isinstance(answer, fastkernel.KernelStack):
        return [answer.kernels, answer.standard_errors, answer.residual_rms]
    if isinstance(answer, fastkernel.NormalEquations):
        return [answer.gram, answer.moments, np.array(answer.energy), np.array(answer.n_pixels)]
    if isinstance(answer, fastkernel.KernelShapeSelection):
        return [np.array(answer.shape)]
    return [answer if isinstance(answer, np.ndarray) else np.array(answer)]


def of_dtype(images, dtype):
    """Images of a dtype in C order; masks as they are."""
    return {
        name: np.array(image, image.dtype if "mask" in name else dtype, order="C")
        for name, image in images.items()
    }


def largest_level(dtype):
    return 1 if dtype == "?" else 9


# Layouts


class Subclass(np.ndarray):
    """Of no behaviour of its own."""


def surrounded(image, shape, part):
    """An image as a part of a larger array, around which other numbers stand."""
    larger = np.full(shape, 1, image.dtype)
    larger[part] = image
    return larger[part]


def transposed(image):
    return image.T.copy().T


def unaligned(image):
    found = np.empty(image.nbytes + 1, np.uint8)[1:].view(image.dtype).reshape(image.shape)
    found[...] = image
    return found


def read_only(image):
    found = image.copy()
    found.flags.writeable = False
    return found


def field_of_records(image):
    records = np.ones(image.shape, [("before", np.uint8), ("value", image.dtype)])
    records["value"] = image
    return records["value"]


def every_second(image):
    rows, *between, cols = image.shape
    part = (slice(None, None, 2), ..., slice(None, None, 2))
    return surrounded(image, (2 * rows, *between, 2 * cols), part)


def window(image):
    part = tuple(slice(2, 2 + n) for n in image.shape)
    return surrounded(image, tuple(n + 5 for n in image.shape), part)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "transposed": transposed,
    "rows backwards": lambda image: image[::-1].copy()[::-1],
    "columns backwards": lambda image: image[..., ::-1].copy()[..., ::-1],
    "both backwards": lambda image: image[::-1, ..., ::-1].copy()[::-1, ..., ::-1],
    "every second": every_second,
    "window": window,
    "read-only": read_only,
    "unaligned": unaligned,
    "memory map": None,
    "subclass": lambda image: image.copy().view(Subclass),
    "field of records": field_of_records,
}


@pytest.fixture
def laid_out(tmp_path):
    """Return an image in a layout; memory maps need a file each."""
    numbers = itertools.count()

    def mapped(image):
        path = tmp_path / f"image{next(numbers)}"
        found = np.memmap(path, image.dtype, "w+", shape=image.shape)
        found[...] = image
        return found

    return lambda image, layout: (LAYOUTS[layout] or mapped)(image)


def state_of(image):
    """All that a function could change of an argument, the numbers beside its pixels too."""
    if isinstance(image, list):
        return repr(image)
    root = image
    while isinstance(root.base, np.ndarray):
        root = root.base
    return root.tobytes(), str(image.flags), image.dtype, image.shape, image.strides


def answer_of(case, images):
    """The numbers of an answer; the arguments are looked at before and after."""
    before = {name: state_of(image) for name, image in images.items()}
    found = arrays_in(case.call(**images))
    for name, image in images.items():
        assert state_of(image) == before[name], f"{name} was changed"
    return found


@functools.cache
def in_c_order(name, dtype, largest):
    """The numbers of an answer of plain arrays."""
    return answer_of(CASES[name], of_dtype(CASES[name].images(largest), dtype))


def assert_same(found, want, where):
    assert len(found) == len(want)
    for one, other in zip(found, want, strict=True):
        assert type(one) is np.ndarray, where
        assert one.dtype == other.dtype, where
        assert_array_equal(one, other, str(where))


def is_single(dtype):
    return np.dtype(dtype).type is np.float32


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name, dtype in itertools.product(CASES, DTYPES)
        if (dtype == "f4" or not CASES[name].slow)
        # It takes the precision of a source for noise that the source has.
        and (name, dtype) != ("estimate_kernel by fft", "f2")
    ],
)
def test_the_dtype_changes_no_more_than_rounding(name, dtype):
    largest, bound = largest_level(dtype), 1e-5 if is_single(dtype) else 1e-12
    got, exact = in_c_order(name, dtype, largest), in_c_order(name, "f8", largest)
    for one, want in zip(got, exact, strict=True):
        atol = bound * np.nanmax(np.abs(want), initial=0)
        assert_allclose(one.astype(float), want, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "dtype"), [*itertools.product(CASES, DTYPES)])
def test_the_layout_changes_no_bit(name, dtype, laid_out):
    """What is slow has the bits of native floats in every dtype, and is called once for each."""
    case, largest, turn = CASES[name], largest_level(dtype), DTYPES.index(dtype)
    images = of_dtype(case.images(largest), dtype)
    alike = "f4" if is_single(dtype) else "f8"
    want = in_c_order(name, alike if case.slow else dtype, largest)
    layouts = list(LAYOUTS)
    for number in range(turn % case.share, len(layouts), case.share):
        chosen = {
            one: layouts[(number + 5 * place) % len(layouts)] for place, one in enumerate(images)
        }
        found = answer_of(case, {one: laid_out(images[one], chosen[one]) for one in images})
        assert_same(found, want, chosen)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name, dtype in itertools.product(CASES, ["?", "i2", "f8", "g"])
        if name != "estimate_kernel channels"  # a list of images is several images
        and (dtype == "i2" or not CASES[name].slow)
    ],
)
def test_lists_are_the_arrays_that_numpy_makes_of_them(name, dtype):
    case = CASES[name]
    images = of_dtype(case.images(largest_level(dtype)), dtype)
    found = answer_of(case, {one: image.tolist() for one, image in images.items()})
    if case.slow:
        assert_same(found, in_c_order(name, "f8", 9), "lists")
    else:
        lists = {one: np.array(image.tolist()) for one, image in images.items()}
        assert_same(found, answer_of(case, lists), "lists")


def outcome_of(case, images):
    """The numbers of an answer, or what was said in place of one."""
    try:
        return answer_of(case, images)
    except ValueError as error:
        return [np.array(str(error))]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name, case in CASES.items()
        for dtype in (["f8"] if case.slow else ["u1", "f4", "f8"])
    ],
)
def test_rows_that_are_one_row(name, dtype):
    """Of stacks, images that are one image. Where they tell no kernel, copies tell none."""
    case = CASES[name]
    images = of_dtype(case.images(9), dtype)
    for one in list(images)[-1 if case.slow else 0 :]:
        alike = np.broadcast_to(images[one][:1], images[one].shape)
        found = outcome_of(case, images | {one: alike})
        assert_same(found, outcome_of(case, images | {one: alike.copy()}), one)


SHIFTS = "circshift", "fftshift", "ifftshift"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pair for pair in itertools.product(CASES, REFUSED) if pair[0] not in SHIFTS],
)
def test_what_is_no_real_number_is_refused_by_its_name(name, dtype):
    case = CASES[name]
    images = of_dtype(case.images(9), "f8")
    for one, image in images.items():
        refused = image.astype(int).astype(dtype)
        with pytest.raises((TypeError, ValueError), match=rf"^{one}\b.* got dtype "):
            case.call(**images | {one: refused})


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        (layout, dtype)
        for layout, dtype in itertools.product(LAYOUTS, REFUSED)
        # What is made of bytes holds no Python objects.
        if dtype != "O" or layout not in ("unaligned", "memory map")
    ],
)
def test_shifts_keep_what_they_move(layout, dtype, laid_out):
    image = pixels(9).astype(dtype)
    given = laid_out(image, layout)
    for name in SHIFTS:
        shift = {"circshift": (3, -5), "fftshift": (12, 15), "ifftshift": (-12, -15)}[name]
        found = CASES[name].call(given)
        assert found.dtype == image.dtype
        assert_array_equal(found, np.roll(image, shift, (0, 1)))
        assert_array_equal(given, image)
