"""The commands that make an image from an image, and kernels from a word."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageCms, ImageOps
from scipy import ndimage

from fastkernel import inverse_filter, inverse_kernel, richardson_lucy
from fastkernel.cli import main, restore
from fastkernel.cli.invert import centred
from fastkernel.cli.kernels import read_kernel
from fastkernel.cli.progress import ProgressBar
from fastkernel.cli.scene import dead_leaves

SCENE = dead_leaves(96, np.random.default_rng(3))
KERNEL = np.array([[0.0, 1.0, 2.0], [3.0, 2.0, 0.0]]) / 8  # no product is rounded


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Image.fromarray(SCENE).save("a.png")
    np.save("k.npy", KERNEL)


def expected(image, kernel):
    # SciPy takes the later of two centre taps.
    origin = [-1 if n % 2 == 0 else 0 for n in kernel.shape]
    return ndimage.convolve(image.astype(float), kernel, mode="nearest", origin=origin)


def made(arguments, name):
    assert main([*arguments, "-o", name]) == 0
    return np.load(name) if name.endswith(".npy") else np.asarray(Image.open(name))


def test_apply_convolves_and_keeps_the_levels():
    found = made(["apply", "k.npy", "a.png"], "b.png")
    assert found.dtype == np.uint8
    assert_array_equal(found, np.rint(expected(SCENE, KERNEL)).clip(0, 255))
    turned = made(["apply", "k.npy", "a.png", "--correlation"], "c.png")
    assert_array_equal(turned, np.rint(expected(SCENE, KERNEL[::-1, ::-1])).clip(0, 255))


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("x.tif", SCENE.astype(np.uint16) * 257),
        ("x.tif", np.stack([SCENE, SCENE.T, SCENE[::-1]], axis=-1)),
        ("x.tif", (SCENE / 255).astype(np.float32)),
        ("x.npy", SCENE / 255),
        ("x.npy", SCENE.astype(np.int32)),
    ],
)
def test_apply_keeps_every_dtype(name, image):
    if name.endswith(".npy"):
        np.save(name, image)
    else:
        tifffile.imwrite(name, image, photometric="rgb" if image.ndim == 3 else "minisblack")
    assert main(["apply", "k.npy", name, "-o", f"y{name}"]) == 0
    found = np.load(f"y{name}") if name.endswith(".npy") else tifffile.imread(f"y{name}")
    planes = np.moveaxis(np.atleast_3d(image), -1, 0)
    want = np.stack([expected(plane, KERNEL) for plane in planes], axis=-1).reshape(image.shape)
    assert found.dtype == image.dtype
    if image.dtype.kind in "ui":
        assert_array_equal(found, np.rint(want))
    else:
        assert_allclose(found, want, atol=1e-6)


def test_clip_keeps_floats_in_their_range():
    np.save("x.npy", SCENE / 255)
    sharpen = np.array([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    np.save("s.npy", sharpen)
    free = made(["apply", "s.npy", "x.npy"], "free.npy")
    kept = made(["apply", "s.npy", "x.npy", "--clip"], "kept.npy")
    assert free.max() > (SCENE / 255).max()
    assert_allclose(kept, free.clip((SCENE / 255).min(), (SCENE / 255).max()))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(["wiener"], marks=pytest.mark.jit),
        pytest.param(["wiener", "--balance", "0.001"], marks=pytest.mark.jit),
        ["richardson-lucy", "--num-iter", "9"],
    ],
)
def test_restore_undoes_a_blur_of_eight_bits(method):
    blurred = made(["apply", "gaussian:1.5", "a.png", "--boundary", "symmetric"], "b.png")
    command = ["restore", "b.png", "--kernel", "gaussian:1.5", "--method", *method]
    restored = made(command, "c.png")
    inside = np.s_[8:-8, 8:-8]
    errors = [np.abs(image.astype(float) - SCENE)[inside].mean() for image in (blurred, restored)]
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.jit
def test_the_border_of_a_restored_motion_does_not_ring():
    """A guess of what stands beyond the border would ring: the kernel removes frequencies."""
    blurred = made(["apply", "motion:9@30", "a.png"], "b.png")
    errors = {}
    for more in ([], ["--boundary", "symmetric"], ["--boundary", "edge_taper"]):
        name = f"c{len(errors)}.png"
        restored = made(["restore", "b.png", "--kernel", "motion:9@30", *more], name)
        errors[" ".join(more)] = np.abs(restored.astype(float) - SCENE).mean()
    blur = np.abs(blurred.astype(float) - SCENE).mean()
    assert errors[""] < 0.5 * min(blur, errors["--boundary symmetric"])
    assert errors["--boundary edge_taper"] < errors["--boundary symmetric"]


@pytest.mark.jit
@pytest.mark.parametrize("balance", [[], ["--balance", "0.01"]])
def test_a_large_image_is_restored_by_tiles(balance, monkeypatch, capsys):
    """As well as at once, with one balance for all of them."""
    wide = np.tile(SCENE, (1, -(-1100 // SCENE.shape[1])))
    Image.fromarray(wide).save("a.png")
    made(["apply", "motion:9@30", "a.png", "--boundary", "symmetric"], "b.png")
    command = ["restore", "b.png", "--kernel", "motion:9@30", *balance]
    whole = made(command, "c.png")
    assert "by tiles" not in capsys.readouterr().out
    monkeypatch.setattr(restore, "_TILED", wide.size - 1)
    monkeypatch.setattr(restore, "_SIDE", 512)
    tiled = made(command, "d.png")
    told = capsys.readouterr().out
    assert "restored by tiles that overlap" in told
    assert ("balance: " in told) == (not balance)
    errors = [np.abs(image.astype(float) - wide).mean() for image in (whole, tiled)]
    assert errors[1] < 1.1 * errors[0]
    assert np.abs(tiled.astype(float) - whole)[:, 1020:1028].mean() < errors[0] / 2


def test_options_of_a_restoration():
    Image.fromarray(SCENE[:40, :40]).save("a.png")
    image = made(["apply", "gaussian:1", "a.png"], "b.png").astype(float)
    psf = read_kernel("gaussian:1")

    def check(function, arguments, **options):
        found = made(["restore", "b.png", "--kernel", "gaussian:1", *arguments, "--force"], "c.png")
        assert_array_equal(found, np.rint(function(image, psf, **options)).clip(0, 255))

    lucy = ["--method", "richardson-lucy", "--num-iter", "9"]
    check(richardson_lucy, [*lucy, "--no-acceleration"], num_iter=9, acceleration=False)
    check(richardson_lucy, [*lucy, "--noise", "4"], num_iter=9, noise=4.0)
    check(richardson_lucy, [*lucy, "--noise", "poisson"], num_iter=9, noise="poisson")
    guarded = ["--method", "inverse", "--guarded", "--epsilon", "0.1"]
    check(inverse_filter, guarded, epsilon=0.1, guarded=True)


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_light_is_blurred_and_restored(dtype):
    """Levels of sRGB by the standard's own two formulas."""
    white = np.iinfo(dtype).max
    image = SCENE.astype(dtype) * dtype(white // 255)
    stored = image / white
    light = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    light = expected(light, KERNEL)
    want = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    np.save("x.npy", image)
    found = made(["apply", "k.npy", "x.npy", "--transfer", "srgb"], "y.npy")
    assert found.dtype == dtype
    assert_allclose(found, np.rint(want * white), atol=1)
    command = ["restore", "y.npy", "--kernel", "k.npy"]
    errors = [
        np.abs(made([*command, *more], name).astype(float) - image).mean()
        for name, more in (("p.npy", ["--transfer", "srgb"]), ("q.npy", []))
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_white_of_64_bits_stays_white(dtype):
    white = np.iinfo(dtype).max
    np.save("x.npy", np.full((4, 5), white, dtype))
    np.save("k.npy", [[2.0]])
    assert (made(["apply", "k.npy", "x.npy"], "y.npy") > 0.999 * white).all()


def test_floats_are_not_rounded():
    found = made(["apply", "k.npy", "a.png", "--float"], "b.npy")
    assert found.dtype == np.float64
    assert_allclose(found, expected(SCENE, KERNEL))
    assert main(["apply", "k.npy", "a.png", "--float", "-o", "b.tif"]) == 0
    assert_array_equal(tifffile.imread("b.tif"), found)
    sharp = ["apply", "sharp.csv", "a.png", "--float"]
    Path("sharp.csv").write_text("-1,3,-1\n", encoding="utf-8")
    free, clipped = made(sharp, "c.npy"), made([*sharp, "--clip"], "d.npy")
    assert free.min() < SCENE.min()
    assert_array_equal(clipped, free.clip(SCENE.min(), SCENE.max()))


def test_restore_divides_what_was_not_rounded():
    made(["apply", "motion:4.5@20", "a.png", "--boundary", "circular", "--float"], "y.npy")
    command = ["restore", "y.npy", "--kernel", "motion:4.5@20", "--method", "inverse"]
    found = made([*command, "--epsilon", "1e-9"], "z.npy")
    assert_allclose(found, SCENE, atol=1e-3)


def test_invert_tells_how_good_an_inverse_is(capsys):
    kernel = [[0.0, 1, 0], [1, 8, 1], [0, 1, 0]]
    np.savetxt("k.csv", kernel, delimiter=",")
    assert main(["invert", "k.csv", "--size", "9", "-o", "g.npy"]) == 0
    text = capsys.readouterr().out
    product = ndimage.convolve(np.pad(np.load("g.npy"), 2), np.array(kernel), mode="constant")
    peak = np.zeros_like(product)
    peak[6, 6] = 1
    assert np.abs(product - peak).max() < 1e-4
    assert text.startswith("9x9 inverse: taps\n")
    assert [len(line.split()) for line in text.splitlines()[1:10]] == [9] * 9
    assert "delay: 5 rows, 5 columns of the full convolution" in text
    assert "smallest gain of the kernel: 4 at frequency" in text
    assert "no inverse" not in text
    assert main(["invert", "box:3", "--size", "9"]) == 0
    assert "no inverse of any size is exact" in capsys.readouterr().out


def test_invert_by_the_matrix_of_a_border(capsys):
    command = ["invert", "k.npy", "--size", "6x5", "--method", "matrix", "--boundary", "mirror"]
    assert main([*command, "-o", "g.npy"]) == 0
    fit = inverse_kernel(KERNEL, (6, 5), method="matrix", boundary="mirror")
    assert_array_equal(np.load("g.npy"), fit.kernel)
    capsys.readouterr()


@pytest.mark.jit
def test_invert_tells_of_its_iterations(capsys):
    assert main(["invert", "gaussian:1", "--size", "40"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^iterations: \d+, converged$", text, re.MULTILINE)
    assert text.startswith("40x40 inverse: too wide to show; the largest tap is ")
    assert "not known" not in text


def test_an_inverse_beyond_memory(capsys, monkeypatch):
    def fail(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr("fastkernel.inverse_kernel", fail)
    assert main(["invert", "k.npy", "--size", "99999"]) == 3
    assert "an inverse of 99999x99999 taps needs more than there is" in capsys.readouterr().err


def test_an_inverse_is_drawn():
    pytest.importorskip("matplotlib")
    assert main(["invert", "k.npy", "--size", "6", "--plot", "g.png"]) == 0
    assert np.asarray(Image.open("g.png")).ndim == 3


def test_kernels_in_a_word():
    rows = np.arange(-9, 10)[:, None]
    gaussian = np.exp(-(rows**2 + rows.T**2) / (2 * 2.0**2))
    assert_allclose(read_kernel("gaussian:2"), gaussian / gaussian.sum(), rtol=1e-12)
    assert_array_equal(read_kernel("box:2x3"), np.full((2, 3), 1 / 6))
    assert_array_equal(read_kernel("box:2"), np.full((2, 2), 1 / 4))
    assert_allclose(read_kernel("motion:4"), np.full((1, 4), 1 / 4))
    assert read_kernel("motion:9@90").shape == (9, 1)
    assert abs(read_kernel("disk:2.5").sum() - 1) < 1e-12


@pytest.mark.parametrize("name", ["g.png", "g.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_levels_of_a_kernel_are_divided_by_their_sum(name, dtype, capsys):
    levels = np.array([[0, 50], [150, 0]], dtype)
    if name.endswith("png"):
        Image.fromarray(levels).save(name)
    else:
        tifffile.imwrite(name, levels, photometric="minisblack")
    assert_allclose(read_kernel(name), [[0, 0.25], [0.75, 0]])
    assert "divided by their sum, 200" in capsys.readouterr().out
    assert_array_equal(made(["apply", name, "a.png", "--float"], "b.npy").shape, SCENE.shape)
    assert "divided by their sum, 200" in capsys.readouterr().out


TAPS = {
    "laplacian": [[0.0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "half": [[0.5]],
    "dark": [[-1.0, -2.0]],
    "sum of 7": [[3.0, 4.0]],
}


def write_taps(name, taps):
    if name.endswith(".npy"):
        np.save(name, taps)
    elif name.endswith(".csv"):
        np.savetxt(name, taps, delimiter=",")
    else:
        tifffile.imwrite(name, np.asarray(taps), photometric="minisblack")


@pytest.mark.parametrize("taps", TAPS)
def test_taps_are_the_same_in_every_table_of_numbers(taps, capsys):
    for dtype in (np.float32, np.float64, np.int16):
        values = np.array(TAPS[taps]).astype(dtype)
        if not values.any():
            continue
        for name in ("k1.npy", "k1.csv", "k1.tif"):
            write_taps(name, values)
            assert_array_equal(read_kernel(name), values)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["p.npy", "p.csv", "p.tif", "p.png"])
def test_a_restoration_keeps_the_brightness(name, capsys):
    """By a PSF of whole numbers, which every kind of file holds."""
    psf = np.array([[0, 20, 0], [40, 90, 30], [0, 20, 0]], np.uint8)
    if name.endswith(".png"):
        Image.fromarray(psf).save(name)
    else:
        write_taps(name, psf if name == "p.npy" else psf.astype(float))
    np.save("unit.npy", psf / psf.sum())
    wanted = made(["restore", "a.png", "--kernel", "unit.npy"], "c.png")
    capsys.readouterr()
    found = made(["restore", "a.png", "--kernel", name], "d.png")
    assert_array_equal(found, wanted)
    assert re.search("divided by (it|their sum), ", capsys.readouterr().out)
    if name != "p.png":
        dark = made(["restore", "a.png", "--kernel", name, "--keep-sum", "--float"], "e.npy")
        assert abs(dark.mean() * psf.sum() / SCENE.mean() - 1) < 0.05


def test_a_psf_that_no_division_makes_1_is_told(capsys):
    np.save("edge.npy", TAPS["laplacian"])
    made(["restore", "a.png", "--kernel", "edge.npy", "--float"], "c.npy")
    assert "sum to 0, which no blur does; they are taken as they" in capsys.readouterr().out


@pytest.mark.parametrize("causal", [[[1.0, 0.5, 0.2, 0.1]], [[0.1], [0.2], [0.5], [1.0], [0.0]]])
@pytest.mark.parametrize("size", ["7", "8", "6x9"])
def test_an_inverse_brings_the_picture_back_in_its_place(causal, size, capsys):
    """Though a kernel of which one end is heaviest has an inverse that is a delay."""
    np.save("f.npy", causal)
    margin = ["--size", size if "x" in size else f"{size}"]
    assert main(["invert", "f.npy", *margin, "-o", "g.npy"]) == 0
    assert "the picture is back in its place" in capsys.readouterr().out
    made(["apply", "f.npy", "a.png", "--float"], "b.npy")
    back = made(["apply", "g.npy", "b.npy"], "c.npy")
    inside = np.s_[20:-20, 20:-20]
    errors = {
        (i, j): np.abs(np.roll(back, (i, j), (0, 1)) - SCENE)[inside].mean()
        for i in range(-4, 5)
        for j in range(-4, 5)
    }
    assert min(errors, key=errors.get) == (0, 0)


def test_inverses_of_every_delay_are_centred():
    for m, p in ((1, 4), (2, 5), (5, 3), (4, 4), (3, 7)):
        for delay in range(m + p - 1):
            inverse = np.arange(1.0, p + 1)[:, None]
            placed = centred(inverse, (delay, 0), (m, 1))
            before = int(np.flatnonzero(placed[:, 0])[0])
            assert_array_equal(placed[before : before + p], inverse)
            assert before + delay == (m - 1) // 2 + (len(placed) - 1) // 2


def drawn(name):
    assert main(["invert", "k.npy", "--size", "6", "-o", name]) == 0
    return name


def test_a_drawn_kernel_is_no_kernel(capsys):
    pytest.importorskip("matplotlib")
    drawn("drawn.png")
    assert main(["invert", "k.npy", "--size", "6", "--plot", "fit.png"]) == 0
    Image.fromarray(SCENE[:90, :90]).resize((180, 100)).save("photo.png")
    Image.fromarray(np.asarray(Image.open("drawn.png"))).save("again.png")  # its mark is lost
    tifffile.imwrite("photo.tif", np.asarray(Image.open("photo.png")), photometric="minisblack")
    capsys.readouterr()
    for name, message in {
        "drawn.png": "'drawn.png' is a drawing of a kernel, enlarged",
        "fit.png": "'fit.png' is a drawing of a fit, enlarged",
        "again.png": "a photograph rather than a kernel of at most 128 x 128",
        "photo.png": "'photo.png' holds 100 x 180 grey levels",
        "photo.tif": "'photo.tif' holds 100 x 180 grey levels",
    }.items():
        assert main(["apply", name, "a.png", "-o", "no.png"]) == 3
        out, err = capsys.readouterr()
        assert (out, message in err, err.count("\n")) == ("", True, 1)


COLOUR = np.stack([SCENE[:60], SCENE[20:80], SCENE[30:90]], axis=-1)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif"])
def test_pictures_are_read_and_written_upright(name, orientation, capsys):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if name == "x.tif":
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(name, COLOUR, photometric="rgb", extratags=tag)
        whole = Image.fromarray(COLOUR)
        whole.getexif()[0x0112] = orientation
    else:
        Image.fromarray(COLOUR).save(name, exif=exif)
        with Image.open(name) as whole:
            whole.load()
    want = np.asarray(ImageOps.exif_transpose(whole))
    for output in ("y.png", "y.tif", "y.npy"):
        assert main(["apply", "box:1", name, "-o", output]) == 0
        turned = "turned upright" in capsys.readouterr().out
        assert turned == (2 <= orientation <= 8)
        if output == "y.npy":
            assert_array_equal(np.load(output), want)
            continue
        with Image.open(output) as image:
            assert_array_equal(np.asarray(image), want)
            assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif"])
@pytest.mark.parametrize("output", ["y.png", "y.tif"])
def test_profile_and_resolution_are_kept(name, output):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOUR).save(name, icc_profile=profile, dpi=(300, 150))
    sharpen = ["restore", name, "--kernel", "gaussian:1", "--method", "inverse"]
    for command in (["apply", "box:3", name], sharpen):
        assert main([*command, "-o", output, "--force"]) == 0
        with Image.open(output) as image:
            assert image.info["icc_profile"] == profile
            assert_allclose([float(x) for x in image.info["dpi"]], (300, 150), rtol=1e-3)


def test_no_resolution_is_made_up():
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save("x.jpg", exif=exif)
    assert main(["apply", "box:3", "x.jpg", "-o", "y.png"]) == 0
    with Image.open("y.png") as image:
        assert "dpi" not in image.info


def test_a_pixel_that_the_dtype_lacks_is_refused(recwarn, capsys):
    np.save("x.npy", np.full((9, 9), 60000, np.float16))
    np.save("two.npy", [[2.0]])
    assert main(["apply", "two.npy", "x.npy", "-o", "y.npy"]) == 3
    assert "it has pixels that float16 cannot hold" in capsys.readouterr().err
    assert not recwarn.list


REFUSED = {
    "unknown kernel": (["apply", "what", "a.png"], 3, "'what' is no kernel: give a file"),
    "negative blur": (["apply", "gaussian:-1", "a.png"], 3, "'gaussian:-1' is no kernel"),
    "huge blur": (["apply", "disk:9999", "a.png"], 3, "sizes above 0 and up to 500"),
    "half a box": (["apply", "box:2.5", "a.png"], 3, "a box has whole sides"),
    "no kernel file": (["apply", "missing.npy", "a.png"], 3, "cannot be read"),
    "no csv": (["apply", "missing.csv", "a.png"], 3, "cannot be read"),
    "words": (["apply", "words.csv", "a.png"], 3, "is not a table of numbers"),
    "dark kernel": (["apply", "dark.npy", "a.png"], 3, "must hold a tap that is not zero"),
    "kernel with a hole": (["apply", "hole.csv", "a.png"], 3, "finite taps, got nan at [0, 1]"),
    "coloured kernel": (["apply", "colour.npy", "a.png"], 3, "has channels; a kernel has rows"),
    "light of floats": (
        ["apply", "k.npy", "f.npy", "-o", "b.npy", "--transfer", "srgb"],
        3,
        "--transfer srgb needs an 8 or 16 bit file, not 'f.npy'",
    ),
    "negative light": (
        ["restore", "n.npy", "--kernel", "k.npy", "--method", "richardson-lucy", "-o", "b.npy"],
        3,
        "'n.npy' cannot be restored: image must be finite and not negative",
    ),
    "gif out": (["apply", "k.npy", "a.png", "-o", "b.gif"], 4, "has none of the suffixes"),
    "floats in a jpeg": (["apply", "k.npy", "f.npy", "-o", "b.jpg"], 4, "cannot hold these pixels"),
    "one operand": (["apply", "a.png"], 2, "KERNEL and IMAGE are needed, got 'a.png' alone"),
    "kernel after the image": (
        ["apply", "f.npy", "k.npy", "-o", "b.npy"],
        3,
        "'f.npy' stands first and is the kernel, and it is larger than 'k.npy'",
    ),
    "no quality": (["apply", "k.npy", "a.png", "--quality", "0"], 2, "from 1 to 100, got '0'"),
    "quality of floats": (
        ["apply", "k.npy", "a.png", "--quality", "9", "--float", "-o", "b.npy"],
        2,
        "--quality is of JPEG and WebP",
    ),
    "no pages": (["apply", "k.npy", "a.png", "--page", "2"], 3, "is PNG, which has no pages"),
    "unknown option": (["apply", "k.npy", "a.png", "--what"], 2, "unrecognized arguments: --what"),
    "two kernels": (["invert", "k.npy", "--kernel", "k.npy", "--size", "3"], 2, "given once"),
    "two from standard input": (
        ["apply", "-", "-"],
        2,
        "standard input can be read once; give '-' in one place",
    ),
    "floats in a png": (["apply", "k.npy", "a.png", "-o", "b.png", "--float"], 4, "hold floats"),
    "light in floats": (
        ["apply", "k.npy", "a.png", "-o", "b.npy", "--float", "--transfer", "srgb"],
        2,
        "--float goes with --transfer none",
    ),
    "float png": (["apply", "k.npy", "f.npy", "-o", "b.png"], 4, "cannot hold these pixels"),
    "over the input": (["apply", "k.npy", "a.png", "-o", "a.png", "--force"], 4, "is an input"),
    "no such option": (
        ["restore", "a.png", "--kernel", "k.npy", "--num-iter", "3"],
        2,
        "--num-iter goes with --method richardson_lucy, not with wiener",
    ),
    "too large": (
        ["restore", "a.png", "--kernel", "box:200"],
        3,
        "'a.png' cannot be restored: psf must not be larger than the image",
    ),
    "border of another method": (
        ["restore", "a.png", "--kernel", "k.npy", "--boundary", "zero"],
        2,
        "zero does not go with --method wiener: circular, symmetric, edge_taper or unknown",
    ),
    "border of no division": (
        ["restore", "a.png", "--kernel", "k.npy", "--method", "inverse", "--boundary", "unknown"],
        2,
        "--boundary unknown goes with --method inverse --guarded",
    ),
    "plain descent of none": (
        ["restore", "a.png", "--kernel", "k.npy", "--no-acceleration"],
        2,
        "--no-acceleration goes with --method richardson_lucy, not with wiener",
    ),
    "noise in words": (
        ["restore", "a.png", "--kernel", "k.npy", "--noise", "much"],
        2,
        "expected a number of at least 0, got 'much'",
    ),
    "division by nothing": (
        ["invert", "box:3", "--size", "9", "--method", "fft"],
        1,
        "'box:3' removes a frequency, which no division brings back: give --ridge",
    ),
    "border of no matrix": (
        ["invert", "box:3", "--size", "9", "--boundary", "zero"],
        2,
        "--boundary goes with --method matrix, not with lstsq",
    ),
    "figure of another kind": (
        ["invert", "box:3", "--size", "9", "--plot", "g.jpg"],
        4,
        "has not the suffix a figure is written to",
    ),
    "nothing to invert": (["invert", "a.png", "--size", "0"], 2, "expected taps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, capsys):
    np.save("f.npy", SCENE / 255)
    np.save("n.npy", SCENE / 255 - 0.5)
    np.save("dark.npy", np.zeros((3, 3)))
    np.save("colour.npy", np.ones((3, 3, 3)))
    Path("hole.csv").write_text("1,nan\n0,1\n", encoding="utf-8")
    Path("words.csv").write_text("a,b\n", encoding="utf-8")
    arguments, code, message = REFUSED[case]
    if "-o" not in arguments and arguments[0] != "invert":
        arguments = [*arguments, "-o", "b.png"]
    before = sorted(path.name for path in Path().iterdir())
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def test_the_bar_waits_and_is_wiped_away(monkeypatch, capsys):
    times = iter([0.0, 0.5, 1.5, 1.55, 9.0])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = ProgressBar()
    for done in (1, 2, 3, 4):
        bar(done, 4)
    drawn = capsys.readouterr().err
    assert drawn == f"\r[{'#' * 15}{'.' * 15}]  50%\r[{'#' * 30}] 100%"
    bar.clear()
    assert capsys.readouterr().err == "\r" + " " * 37 + "\r"


def test_no_bar_in_a_file(capsys):
    bar = ProgressBar()
    bar._next = 0.0
    bar(1, 2)
    bar.clear()
    assert capsys.readouterr().err == ""
