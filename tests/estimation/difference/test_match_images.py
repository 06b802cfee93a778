"""`match_images` against planted kernels, noise, changes and bad pixels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

from fastkernel.estimation.difference.image_match import MISSING, MatchFlag
from fastkernel.estimation.difference.match_images import match_images
from fastkernel.estimation.errors import SingularFitError
from tests.shared import gaussian
from tests.weighted import reached

SHAPE, SIZE = (120, 130), 11
KERNEL = 1.3 * np.roll(gaussian(SIZE, 1.2), 1, axis=1)
SKY, SIGMA = (50.0, 80.0), (4.0, 3.0)  # of reference and science
NEW = (60, 55)


@pytest.fixture(scope="module")
def scene():
    """A reference, a science image, and their noise."""
    rng = np.random.default_rng(3)
    points = np.zeros(SHAPE)
    points.flat[rng.choice(points.size, 200, replace=False)] = 10 ** rng.uniform(2.5, 4.3, 200)
    clean = signal.fftconvolve(points, gaussian(25, 1.3), "same")
    points[NEW] += 3000.0
    changed = signal.fftconvolve(points, gaussian(25, 1.3), "same")
    matched = signal.fftconvolve(changed, KERNEL, "same")
    noise = [s * rng.standard_normal(SHAPE) for s in SIGMA]
    slope = np.linspace(-10, 10, SHAPE[1])
    return clean + SKY[0] + noise[0], matched + SKY[1] + slope + noise[1], noise


TOLD = {"science_variance": SIGMA[1] ** 2, "reference_variance": SIGMA[0] ** 2}


@pytest.fixture(scope="module")
def plain(scene):
    reference, science, _ = scene
    return match_images(science, reference, SIZE, degree=1, decorrelate=False, **TOLD)


@pytest.fixture(scope="module")
def white(scene):
    reference, science, _ = scene
    return match_images(science, reference, SIZE, degree=1, **TOLD)


def inside(image, margin=SIZE // 2):
    return image[margin:-margin, margin:-margin]


def away(margin=9):
    """Pixels that the new star does not reach."""
    y, x = np.indices(SHAPE)
    return np.hypot(y - NEW[0], x - NEW[1]) > margin


@pytest.mark.jit
def test_the_planted_kernel_is_found(plain):
    assert plain.direction == "reference"
    for place in [(20, 20), (60, 65), (100, 110)]:
        seen = signal.convolve(plain.field.kernel_at(*place) - KERNEL, gaussian(25, 1.3))
        assert np.abs(seen).max() < 0.02 * signal.convolve(KERNEL, gaussian(25, 1.3)).max()
    assert_allclose(plain.field.scale_at(70, 75), KERNEL.sum(), rtol=3e-3)


@pytest.mark.jit
def test_a_kernel_that_varies_is_found_and_one_that_does_not_is_told(rng, scene, plain):
    points = np.zeros((160, 160))
    points.flat[rng.choice(points.size, 400, replace=False)] = 10 ** rng.uniform(2.5, 4.3, 400)
    clean = signal.fftconvolve(points, gaussian(25, 1.3), "same")
    share = np.linspace(0, 1, 160)
    kernels = [gaussian(SIZE, 1.0), np.roll(gaussian(SIZE, 1.5), 1, axis=0)]
    ends = [signal.fftconvolve(clean, kernel, "same") for kernel in kernels]
    science = (1 - share) * ends[0] + share * ends[1] + rng.standard_normal(clean.shape)
    reference = clean + rng.standard_normal(clean.shape)
    match = match_images(science, reference, SIZE, degree=1, **dict.fromkeys(TOLD, 1.0))
    assert match.field.degree == 1
    for t in (0.1, 0.5, 0.9):
        wanted = (1 - t) * kernels[0] + t * kernels[1]
        off = signal.convolve(match.field.kernel_at(80, 159 * t) - wanted, gaussian(25, 1.3))
        assert np.abs(off).max() < 0.02 * signal.convolve(wanted, gaussian(25, 1.3)).max()
    # Of `scene`, whose kernel is the same everywhere.
    assert plain.field.degree == 0
    kept = match_images(scene[1], scene[0], SIZE, degree=1, adapt_degree=False, **TOLD)
    assert kept.field.degree == 1


@pytest.mark.jit
def test_what_is_left_is_noise_and_what_changed(scene, plain):
    noise = scene[2]
    left = noise[1] - signal.fftconvolve(noise[0], KERNEL, "same")
    off = inside(np.where(away(), plain.difference - left, 0))
    assert np.std(off) < 0.25 * np.std(left)
    star = signal.fftconvolve(gaussian(25, 1.3), KERNEL, "same")
    cut = plain.difference[NEW[0] - 7 : NEW[0] + 8, NEW[1] - 7 : NEW[1] + 8]
    flux = np.sum(cut * star[5:20, 5:20]) / np.sum(star[5:20, 5:20] ** 2)
    assert_allclose(flux, 3000.0, rtol=0.03)
    assert plain.flags[NEW] == MatchFlag.CLIPPED
    assert not plain.used[NEW]


@pytest.mark.jit
def test_the_variance_is_that_of_both_images(plain):
    wanted = SIGMA[1] ** 2 + SIGMA[0] ** 2 * np.sum(KERNEL**2)
    assert_allclose(inside(plain.variance), wanted, rtol=0.05)
    assert_allclose(np.nanstd(plain.scores[away()]), 1.0, atol=0.03)


@pytest.mark.jit
def test_the_field_predicts_the_image_as_it_came(scene, plain):
    reference, science, _ = scene
    assert_allclose(science - plain.difference, plain.field.predict(reference), atol=1e-8)
    bare = plain.field.predict(reference, background=False)
    assert_allclose(
        inside(plain.background), inside(plain.field.predict(reference) - bare), atol=1e-8
    )


def lag_one(scores):
    pairs = scores[:, 1:] * scores[:, :-1]
    return np.nanmean(pairs) / np.nanmean(scores**2)


@pytest.mark.jit
def test_decorrelation_makes_the_noise_white_and_keeps_its_variance_known(plain, white):
    far = np.where(away(12), 1.0, np.nan)
    assert lag_one(plain.scores * far) > 0.06
    assert abs(lag_one(white.scores * far)) < 0.03
    assert_allclose(np.nanstd(white.scores * far), 1.0, atol=0.03)
    wanted = SIGMA[1] ** 2 + SIGMA[0] ** 2 * KERNEL.sum() ** 2
    assert_allclose(inside(white.variance, 30), wanted, rtol=0.05)
    # The sum of the new star's light is kept.
    cut = np.s_[NEW[0] - 9 : NEW[0] + 10, NEW[1] - 9 : NEW[1] + 10]
    assert_allclose(white.difference[cut].sum(), plain.difference[cut].sum(), rtol=0.03)
    assert white.decorrelated
    assert not plain.decorrelated


@pytest.mark.jit
def test_the_border_is_missing_and_said_to_be(plain, white):
    border = np.ones(SHAPE, bool)
    inside(border)[:] = False
    for match in (plain, white):
        assert_array_equal(np.isnan(match.difference), border)
        assert_array_equal(np.isnan(match.variance), border)
        assert_array_equal((match.flags & MatchFlag.BORDER) != 0, border)
    # What stands beside missing pixels has lost part of its noise.
    assert (white.flags[SIZE // 2, 20:-20] & MatchFlag.NEIGHBOUR).all()
    assert not (inside(white.flags, 20) & MatchFlag.NEIGHBOUR).any()


@pytest.mark.jit
def test_the_sharper_image_is_convolved_and_units_stay(scene, plain):
    reference, science, _ = scene
    turned = match_images(
        reference,
        science,
        SIZE,
        degree=1,
        decorrelate=False,
        science_variance=SIGMA[0] ** 2,
        reference_variance=SIGMA[1] ** 2,
    )
    assert turned.direction == "science"
    scale = plain.field.scale_at(70, 70)
    assert_allclose(turned.difference, -plain.difference / scale, rtol=1e-9, atol=1e-9)
    assert_allclose(turned.variance, plain.variance / scale**2, rtol=1e-9)


@pytest.mark.jit
def test_what_bad_pixels_have_a_part_in_is_missing_and_nothing_else(scene, rng):
    reference, science, _ = scene
    science, reference = science.copy(), reference.copy()
    science[30, 40], reference[100, 50] = np.nan, np.inf
    masks = rng.random((2, *SHAPE)) < 5e-4
    reference[80:83, 100:102] = 1e5
    science[50, 110] = 1e5
    for shape in (SIZE, (10, 11)):
        match = match_images(
            np.ma.array(science, mask=masks[0]),
            reference,
            shape,
            degree=0,
            reference_mask=masks[1],
            saturation=(None, 5e4),
        )
        p, q = match.field.kernel_shape
        part = np.s_[p // 2 : p // 2 + SHAPE[0] - p + 1, q // 2 : q // 2 + SHAPE[1] - q + 1]
        bad = masks[0] | ~np.isfinite(science)
        wanted = {
            MatchFlag.SCIENCE: bad[part],
            MatchFlag.REFERENCE: around(masks[1] | ~np.isfinite(reference), (p, q)),
            MatchFlag.SATURATED: around(reference == 1e5, (p, q)) | (science == 1e5)[part],
        }
        for flag, members in wanted.items():
            assert_array_equal((match.flags[part] & flag) != 0, members)
        missing = np.any(list(wanted.values()), axis=0)
        assert_array_equal(np.isnan(match.difference[part]), missing)
        assert_array_equal((match.flags & MISSING) != 0, np.isnan(match.difference))
        assert not (match.used[part] & missing).any()


def around(bad, shape):
    """Results that a bad pixel of the source has a part in."""
    rows = reached(bad, shape)
    return rows.reshape(SHAPE[0] - shape[0] + 1, SHAPE[1] - shape[1] + 1)


@pytest.mark.jit
def test_noise_is_estimated_where_it_is_not_told(rng):
    points = np.zeros((230, 230))
    points.flat[rng.choice(points.size, 700, replace=False)] = 10 ** rng.uniform(2.5, 4, 700)
    clean = 100 + signal.fftconvolve(points, gaussian(25, 1.4), "same")
    matched = signal.fftconvolve(clean, gaussian(SIZE, 1.3), "same")
    images = [rng.poisson(np.maximum(image, 1)).astype(float) for image in (matched, clean)]
    match = match_images(*images, SIZE, degree=0, decorrelate=False)
    passed = signal.fftconvolve(clean, gaussian(SIZE, 1.3) ** 2, "same")
    wanted = inside(matched + passed, 12)
    found = inside(match.variance, 12)
    dark = wanted < np.median(wanted)
    assert_allclose(np.median(found[dark] / wanted[dark]), 1, atol=0.06)
    bright = wanted > 4 * np.median(wanted)
    assert bright.sum() > 100
    assert_allclose(np.median(found[bright] / wanted[bright]), 1, atol=0.2)
    assert_allclose(match.quality.score_std, 1.0, atol=0.05)


@pytest.mark.jit
def test_the_verdict_tells_a_match_from_none(scene, plain):
    assert plain.quality.belief == "believe it"
    assert "light leaves what noise leaves" in str(plain)
    reference, science, _ = scene
    # A blur cannot be undone by few taps in place of a wide kernel.
    match = match_images(science, reference, 3, degree=0, **TOLD)
    assert match.quality.belief != "believe it"
    assert any("not matched" in reason for reason in match.quality.reasons)


@pytest.mark.jit
def test_the_noise_that_is_told_is_judged(scene):
    reference, science, _ = scene
    match = match_images(
        science, reference, SIZE, degree=0, science_variance=1.0, reference_variance=1.0
    )
    assert match.quality.belief != "believe it"
    assert any("times the noise of its variance" in reason for reason in match.quality.reasons)


@pytest.mark.jit
def test_any_number_of_workers_and_progress(scene, white):
    reference, science, _ = scene
    heard = []
    match = match_images(
        science,
        reference,
        SIZE,
        degree=1,
        workers=1,
        callback=lambda done, total: heard.append((done, total)),
        **TOLD,
    )
    assert_array_equal(match.difference, white.difference)
    assert_array_equal(match.variance, white.variance)
    done = [part / total for part, total in heard]
    assert done == sorted(done)
    assert done[-1] == 1


@pytest.mark.jit
def test_an_automatic_shape_has_room_for_the_kernel(scene):
    reference, science, _ = scene
    match = match_images(science, reference, degree=0, **TOLD)
    p, q = match.field.kernel_shape
    assert p == q
    assert 11 <= p <= 19
    assert match.quality.belief == "believe it"
    small = match_images(science[:33, :50], reference[:33, :50], degree=0, **TOLD)
    assert max(small.field.kernel_shape) <= 17


@pytest.mark.jit
@pytest.mark.parametrize("background", [None, "constant", 1])
def test_backgrounds(scene, background):
    noise = scene[2]
    reference, science = scene[0] - SKY[0], scene[1] - SKY[1]
    if background is None:
        science = science - np.linspace(-10, 10, SHAPE[1])
    match = match_images(
        science, reference, SIZE, degree=0, background=background, decorrelate=False, **TOLD
    )
    assert (match.field.background is None) == (background is None)
    off = inside(match.difference - noise[1] + signal.fftconvolve(noise[0], KERNEL, "same"))
    dark = inside(away()) & (inside(scene[1]) < SKY[1] + 20)
    assert abs(off[dark].mean()) < 0.6
    assert np.isfinite(match.background).all()


def test_nothing_but_noise_determines_no_kernel(rng):
    images = rng.standard_normal((2, 60, 60))
    with pytest.raises(SingularFitError, match="nothing in reference stands out of its noise"):
        match_images(*images, 9, degree=0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"reference": np.zeros((5, 6))}, r"one shape, got \(120, 130\) and \(5, 6\); resample"),
        (
            {"science_mask": np.zeros((5, 6), bool)},
            "science_mask must have the shape",
        ),
        ({"reference_variance": np.ones(3)}, r"reference_variance must have the shape"),
        ({"science_variance": 0.0}, r"science_variance must be finite and greater than 0, got 0.0"),
        ({"science_variance": np.nan}, "science_variance must be finite and greater"),
        ({"reference_mask": np.ones(SHAPE, bool)}, "reference must have at least 16 good pixels"),
        ({"saturation": "auto"}, "saturation='auto' needs a science of integers"),
        ({"direction": "both"}, "direction must be one of 'auto', 'reference', 'science'"),
        ({"degree": 5}, "degree must be an integer from 0 to 4, got 5"),
        ({"background": 7}, "background must be None, 'constant' or a polynomial degree"),
        ({"kernel_shape": "large"}, "kernel_shape must be one of 'auto'"),
        ({"kernel_shape": (201, 3)}, "kernel_shape must fit inside the image"),
    ],
)
def test_refusals(scene, more, said):
    reference, science, _ = scene
    with pytest.raises(ValueError, match=said):
        match_images(**({"science": science, "reference": reference} | more))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"science": np.zeros(SHAPE, complex)}, "science must hold real numbers"),
        ({"adapt_degree": 1}, "adapt_degree must be True or False"),
        ({"decorrelate": "no"}, "decorrelate must be True or False"),
        ({"science_mask": np.zeros(SHAPE)}, "science_mask must be of bool"),
        ({"callback": 3}, "callback must be None or callable"),
    ],
)
def test_refused_types(scene, more, said):
    reference, science, _ = scene
    with pytest.raises(TypeError, match=said):
        match_images(**({"science": science, "reference": reference} | more))


def test_a_small_match(rng):
    points = np.zeros((44, 40))
    points.flat[rng.choice(points.size, 40, replace=False)] = rng.uniform(500, 3000, 40)
    clean = signal.fftconvolve(points, gaussian(15, 1.2), "same")
    science = signal.fftconvolve(clean, KERNEL[3:8, 3:8], "same")
    images = [image + rng.standard_normal(image.shape) for image in (science, clean)]
    match = match_images(*images, 5, degree=0, **dict.fromkeys(TOLD, 1.0))
    assert_allclose(match.field.kernel_at(20, 20), KERNEL[3:8, 3:8], atol=0.02)
    assert_allclose(np.nanstd(match.scores), 1, atol=0.1)
    assert match.quality.belief == "believe it"


@pytest.mark.parametrize("flat", ["science", "reference"])
def test_a_flat_image_determines_no_kernel(rng, flat):
    images = {"science": rng.random((30, 30)) ** 9, "reference": rng.random((30, 30)) ** 9}
    images[flat] = np.full((30, 30), 5.0)
    with pytest.raises(SingularFitError, match=f"nothing in {flat} stands out of its noise"):
        match_images(**images, kernel_shape=3)


@pytest.mark.jit
@pytest.mark.parametrize("rounded", [False, True])
def test_images_without_noise(rng, rounded):
    points = np.zeros((90, 100))
    points.flat[rng.choice(points.size, 150, replace=False)] = rng.uniform(500, 3000, 150)
    clean = signal.fftconvolve(points, gaussian(25, 1.2), "same")
    science = signal.fftconvolve(clean, gaussian(9, 1.0), "same")
    images = [np.rint(x).astype(np.uint16) if rounded else x for x in (science, clean)]
    match = match_images(*images, 9, degree=0)
    assert np.nanmax(np.abs(match.difference)) < (3 if rounded else 0.01)
    assert match.quality.belief != "do not believe it"
