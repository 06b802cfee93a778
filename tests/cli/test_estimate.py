import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy import ndimage
from scipy.signal import convolve
from skimage import data

import fastkernel
from fastkernel.cli import main, output
from fastkernel.cli.scene import dead_leaves
from fastkernel.cli.table import kernel_table

BLUR = np.array([[1, 2, 0, 1], [3, 8, 6, 2], [0, 5, 3, 1]]) / 32
EDGE = np.array([[0.0, 0.5, 0.0], [-1.0, 2.0, -0.25], [0.0, -0.5, 0.25]])
DERIVATIVE = np.array([[1.0, -1.0, 0.0], [2.0, -2.0, 0.0], [1.0, -1.0, 0.0]]) / 8
SCENE = dead_leaves(96, np.random.default_rng(3))
COLOUR = np.stack([dead_leaves(64, np.random.default_rng(seed)) for seed in range(3)], axis=-1)


def blurred(image, kernel, mode="same", levels=255):
    result = convolve(image.astype(float), kernel, mode=mode, method="direct")
    return np.clip(np.rint(result), 0, levels).astype(np.uint8 if levels == 255 else np.uint16)


def over_channels(image, kernel):
    return np.stack([blurred(image[..., c], kernel) for c in range(image.shape[2])], axis=-1)


@pytest.fixture
def save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def save(name, pixels):
        if name.endswith(".npy"):
            np.save(name, pixels)
        elif name.endswith(".tif"):
            tifffile.imwrite(name, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
        else:
            Image.fromarray(pixels).save(name)

    return save


@pytest.fixture
def pair(save):
    save("a.png", SCENE)
    save("b.png", blurred(SCENE, BLUR))
    return ["estimate", "a.png", "b.png", "--size", "3x4"]


def folder_names():
    return sorted(path.name for path in Path().iterdir())


def estimated(arguments):
    assert main([*arguments, "-o", "kernel.npy", "--force"]) == 0
    return np.load("kernel.npy")


def failure(arguments, capsys):
    """Return the exit code and the one line that the command printed."""
    before = folder_names()
    code = main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"fastkernel: error: [^\n]+\n", err)
    assert "Traceback" not in err
    assert folder_names() == before
    return code, err


@pytest.mark.parametrize("mode", ["same", "valid", "full"])
def test_recovers_the_kernel_of_png_files(save, mode):
    save("a.png", SCENE)
    save("b.png", blurred(SCENE, BLUR, mode))
    kernel = estimated(["estimate", "a.png", "b.png", "--size", "3x4"])
    assert_allclose(kernel, BLUR, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "source", "atol"),
    [
        ("x.png", SCENE.astype(np.uint16) * 257, 1e-5),
        ("x.tif", SCENE.astype(np.uint16) * 257, 1e-5),
        ("x.tif", SCENE / 255, 1e-12),
        ("x.tif", (SCENE / 255).astype(np.float32), 1e-6),
        ("x.npy", SCENE / 255, 1e-12),
        ("x.jpg", SCENE, 0.05),
    ],
)
def test_recovers_the_kernel_of_every_format(save, name, source, atol):
    result = convolve(source.astype(float), BLUR, mode="valid", method="direct")
    if source.dtype.kind == "u":
        result = np.rint(result)
    save(f"a{name}", source)
    save(f"b{name}", result.astype(source.dtype))
    kernel = estimated(["estimate", f"a{name}", f"b{name}", "--size", "3x4"])
    assert_allclose(kernel, BLUR, atol=atol)


@pytest.mark.parametrize("name", ["png", "tif", "npy"])
def test_channels_share_the_kernel(save, capsys, name):
    save(f"a.{name}", COLOUR)
    save(f"b.{name}", over_channels(COLOUR, BLUR))
    kernel = estimated(["estimate", f"a.{name}", f"b.{name}", "--size", "3x4"])
    assert_allclose(kernel, BLUR, atol=2e-3)
    assert f"pixels fitted: {3 * 62 * 61}, channels counted apart\n" in capsys.readouterr().out


def test_alpha_is_dropped_on_demand(save, capsys):
    opaque = np.full((64, 64, 1), 255, np.uint8)
    save("a.png", np.dstack([COLOUR, opaque]))
    save("b.png", np.dstack([over_channels(COLOUR, BLUR), opaque]))
    arguments = ["estimate", "a.png", "b.png", "--size", "3x4"]
    code, line = failure(arguments, capsys)
    assert (code, "--drop-alpha" in line) == (3, True)
    assert_allclose(estimated([*arguments, "--drop-alpha"]), BLUR, atol=2e-3)


def test_prints_the_kernel_and_how_far_to_believe_it(pair, capsys):
    assert main(pair) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "3x4 kernel for convolution: taps, each above its standard error"
    taps = np.array([line.split() for line in lines[1:7:2]], float)
    bars = np.array([line.replace("±", " ").split() for line in lines[2:7:2]], float)
    assert_allclose(taps, BLUR, atol=2e-3)
    assert (np.abs(taps - BLUR) < 6 * bars).all()
    assert len({len(line) for line in lines[1:7]}) == 1
    rest = "\n".join(lines[7:])
    assert re.search(r"^sum of taps: (1\.000\d*|0\.999\d*)$", rest, re.MULTILINE)
    assert re.search(
        r"^residual: 0\.2\d+ grey levels \(rounding leaves up to 0\.289\)$",
        rest,
        re.MULTILINE,
    )
    assert re.search(r"^condition number: \S+$", rest, re.MULTILINE)
    assert re.search(rf"^pixels fitted: {94 * 93}$", rest, re.MULTILINE)
    assert re.search(
        r"^light: stored values; linear \(sRGB decoded\) would leave", rest, re.MULTILINE
    )
    assert re.search(r"^verdict: believe it: nothing but rounding", rest, re.MULTILINE)


def test_doubts_a_kernel_that_is_too_small(pair, capsys):
    assert main([*pair[:4], "2"]) == 0
    found = re.search(r"verdict: (do not )?believe.*", capsys.readouterr().out)[0]
    assert "try --size 6x6" in found
    assert "what would help: a larger kernel: --size 10x10 leaves" in found


def test_disbelief_has_an_exit_code_of_its_own(save, capsys):
    save("a.png", SCENE)
    save("b.png", ndimage.median_filter(SCENE, 5))
    arguments = ["estimate", "a.png", "b.png", "--size", "5"]
    assert main(arguments) == 0
    assert "verdict: do not believe it: it leaves " in capsys.readouterr().out
    assert main([*arguments, "--strict"]) == 5
    assert "not to be believed: it leaves" in capsys.readouterr().err
    save("c.png", np.rint(ndimage.convolve(SCENE.astype(float), BLUR)).astype(np.uint8))
    assert main(["estimate", "a.png", "c.png", "--size", "4x5", "--strict"]) == 0


def watermarked(image):
    marked = image.copy()
    marked[100:160, 80:200] = 240
    return marked


FILTERS = {
    "constant: the result has a level of 12": lambda x: x / 2 + 127.0,
    "cut to whole levels": lambda x: np.floor(ndimage.gaussian_filter(x, 0.8)),
    "method lad": lambda x: watermarked(ndimage.gaussian_filter(x, 0.8)),
    "moved by about 9 rows and -7 columns": lambda x: np.roll(x, (9, -7), (0, 1)),
    "varies over the image": lambda x: np.where(
        np.arange(x.shape[1]) < x.shape[1] // 2, x, ndimage.gaussian_filter(x, 0.8)
    ),
    "may be no convolution": lambda x: ndimage.median_filter(x, 5),
}


@pytest.mark.jit
@pytest.mark.parametrize("help_", FILTERS)
def test_says_what_would_help(help_, save, capsys):
    scene = data.camera()[60:360, 80:400]
    save("a.png", scene)
    save("b.png", np.rint(FILTERS[help_](scene.astype(float))).clip(0, 255).astype(np.uint8))
    assert main(["estimate", "a.png", "b.png", "--size", "5"]) == 0
    verdict = re.search(r"^verdict: .*$", capsys.readouterr().out, re.MULTILINE)[0]
    assert not verdict.startswith("verdict: believe it:")
    assert help_ in verdict


def test_channels_that_mix_are_told(save, capsys):
    rng = np.random.default_rng(0)
    scene = np.stack([dead_leaves(200, np.random.default_rng(i)) for i in range(3)], axis=-1)
    mix = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    save("a.png", scene)
    save("b.png", np.rint(scene @ mix + rng.normal(0, 0.5, scene.shape)).clip(0, 255).astype("u1"))
    assert main(["estimate", "a.png", "b.png", "--size", "3"]) == 0
    assert "channels mix" in capsys.readouterr().out


def test_names_a_gain(save, capsys):
    save("a.png", SCENE // 2)
    save("b.png", np.rint(1.5 * (SCENE // 2)).astype(np.uint8))
    assert main(["estimate", "a.png", "b.png", "--size", "3"]) == 0
    assert "(the result is 1.5 times as bright as the source)" in capsys.readouterr().out


@pytest.mark.parametrize("bits", [8, 16])
def test_finds_out_that_light_was_linear(save, capsys, bits):
    white = 2**bits - 1
    source = SCENE if bits == 8 else SCENE.astype(np.uint16) * 257
    stored = source / white
    light = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    light = convolve(light, BLUR, mode="valid", method="direct").clip(0, 1)
    stored = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    save("a.png", source)
    save("b.png", np.rint(stored * white).astype(source.dtype))
    arguments = ["estimate", "a.png", "b.png", "--size", "3x4"]
    assert_allclose(estimated(arguments), BLUR, atol=3e-3)
    out = capsys.readouterr().out
    assert "light: linear (sRGB decoded); stored values would leave a residual of" in out
    assert "verdict: believe it: nothing but rounding" in out
    assert_allclose(estimated([*arguments, "--transfer", "srgb"]), BLUR, atol=3e-3)
    assert "light: linear (sRGB decoded)\n" in capsys.readouterr().out
    assert np.abs(estimated([*arguments, "--transfer", "none"]) - BLUR).max() > 0.01
    assert "light: stored values\n" in capsys.readouterr().out


def test_correlation_is_flipped_both_ways(pair, capsys):
    plain = estimated(pair)
    capsys.readouterr()
    assert_array_equal(estimated([*pair, "--correlation"]), plain[::-1, ::-1])
    out = capsys.readouterr().out
    assert "3x4 kernel for correlation (flipped both ways)" in out
    assert_allclose(np.array(out.splitlines()[1].split(), float), BLUR[::-1, ::-1][0], atol=2e-3)


def test_normalized_kernel_sums_to_one(save, capsys):
    save("a.png", SCENE)
    save("b.png", blurred(SCENE, BLUR / 2))
    arguments = ["estimate", "a.png", "b.png", "--size", "3x4", "--normalize"]
    kernel = estimated(arguments)
    assert kernel.sum() == pytest.approx(1, abs=1e-14)
    assert_allclose(kernel, BLUR, atol=4e-3)
    assert "divided by its sum" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [["--boundary", "zero"], ["--ridge", "1e-9"], ["--workers", "1"], ["--transfer", "none"]],
)
def test_options_reach_the_fit(pair, options):
    assert_allclose(estimated([*pair, *options]), BLUR, atol=2e-3)


def test_csv_keeps_every_digit(pair):
    kernel = estimated(pair)
    assert main([*pair, "-o", "kernel.csv"]) == 0
    assert_array_equal(np.loadtxt("kernel.csv", delimiter=","), kernel)


def test_png_shows_zero_as_black_or_as_mid_grey(save):
    save("a.npy", SCENE / 255)
    for kernel, zero in ((BLUR, 0), (EDGE, 128)):
        save("b.npy", convolve(SCENE / 255, kernel, mode="valid", method="direct"))
        size = "x".join(map(str, kernel.shape))
        arguments = ["estimate", "a.npy", "b.npy", "--size", size, "-o", "k.png", "--force"]
        assert main(arguments) == 0
        with Image.open("k.png") as image:
            picture = np.array(image)
        factor = picture.shape[0] // kernel.shape[0]
        assert max(picture.shape) >= 256
        assert picture.shape == (kernel.shape[0] * factor, kernel.shape[1] * factor)
        levels = picture[::factor, ::factor]
        assert_array_equal(picture, np.kron(levels, np.ones((factor, factor), int)))
        assert set(levels[kernel == 0]) == {zero}
        assert levels.max() == 255
        assert ((levels < zero) == (kernel < 0)).all()


def test_kernel_beyond_the_picture_side_is_not_enlarged():
    assert output.kernel_levels(np.zeros((300, 2))).shape == (300, 2)


USAGE = {
    "no command": ([], "arguments are required: COMMAND"),
    "unknown command": (["guess"], "invalid choice: 'guess'"),
    "no files": (["estimate", "--size", "5"], "arguments are required: SOURCE, RESULT"),
    "size": (["estimate", "a", "b", "--size", "0"], "expected taps as in 5"),
    "size of three": (["estimate", "a", "b", "--size", "3x3x3"], "got '3x3x3'"),
    "escape": (["estimate", "a", "b", "--size", "\x1b[2J"], "got '\\x1b[2J'"),
    "unknown option": (["estimate", "a", "b", "--size", "3", "--x\x1b\n"], "unrecognized"),
    "ridge": (["estimate", "a", "b", "--size", "3", "--ridge", "nan"], "at least 0, got 'nan'"),
    "ridge word": (["estimate", "a", "b", "--size", "3", "--ridge", "x"], "got 'x'"),
    "workers": (["estimate", "a", "b", "--size", "3", "--workers", "0"], "at least 1, got '0'"),
    "pixels": (["estimate", "a", "b", "--size", "3", "--max-pixels", "-1"], "at least 1"),
    "boundary": (["estimate", "a", "b", "--size", "3", "--boundary", "x"], "choose from"),
    "transfer": (["estimate", "a", "b", "--size", "3", "--transfer", "x"], "choose from"),
    "demo size": (["demo", "--size", "8"], "at least 32, got 8"),
    "demo seed": (["demo", "--seed", "-1"], "at least 0, got '-1'"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_options_exit_with_2(save, capsys, case):
    arguments, message = USAGE[case]
    code, line = failure(arguments, capsys)
    assert code == 2
    assert message in line


INPUTS = {
    "missing": ({}, ["c.png", "b.png"], "'c.png' cannot be read: No such file"),
    "folder": ({}, [".", "b.png"], "'.' is not a file"),
    "sizes": (
        {"b.png": SCENE[:50]},
        ["a.png", "b.png"],
        "'a.png' is 96x96 and 'b.png' is 50x96 pixels; with a 3x4 kernel the result must be "
        "96x96, 94x93 ('valid') or 98x99 ('full')",
    ),
    "kernel too large": (
        {"a.png": SCENE[:2]},
        ["a.png", "b.png"],
        "a 3x4 kernel is larger than 'a.png' (2x96 pixels)",
    ),
    "channels": (
        {"b.png": np.dstack([SCENE] * 3)},
        ["a.png", "b.png"],
        "'a.png' has 1 channel and 'b.png' has 3",
    ),
    "nan": (
        {"c.npy": np.where(SCENE > 200, np.nan, SCENE)},
        ["c.npy", "b.png"],
        "'c.npy' and 'b.png' cannot be fitted: ",
    ),
    "too large": ({}, ["a.png", "b.png", "--max-pixels", "9215"], "more than --max-pixels 9215"),
    "no levels": (
        {"c.npy": SCENE / 2},
        ["c.npy", "b.png", "--transfer", "srgb"],
        "--transfer srgb needs 8 or 16 bit files",
    ),
    "strange name": ({}, ["\x1b[31m\n.png", "b.png"], r"'\x1b[31m\n.png' cannot be read"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_wrong_inputs_exit_with_3(pair, save, capsys, case):
    files, names, message = INPUTS[case]
    for name, pixels in files.items():
        save(name, pixels)
    code, line = failure(["estimate", *names, "--size", "3x4", "-o", "kernel.npy"], capsys)
    assert code == 3
    assert message in line


def test_numerical_refusals_exit_with_1(pair, save, capsys):
    save("flat.png", np.full((96, 96), 7, np.uint8))
    arguments = ["estimate", "flat.png", "b.png", "--size", "3", "-o", "kernel.npy"]
    assert failure(arguments, capsys)[0] == 1
    save("a.npy", SCENE / 255)
    save("b.npy", convolve(SCENE / 255, DERIVATIVE, mode="same", method="direct"))
    arguments = ["estimate", "a.npy", "b.npy", "--size", "3", "-o", "kernel.npy"]
    code, line = failure([*arguments, "--normalize"], capsys)
    assert (code, "leave --normalize out" in line) == (1, True)
    assert main(arguments) == 0
    assert_allclose(np.load("kernel.npy"), DERIVATIVE, atol=1e-12)


OUTPUTS = {
    "suffix": ("kernel.txt", "none of the suffixes a kernel is written to: .npz, .npy, .csv, .png"),
    "no suffix": ("kernel", "none of the suffixes"),
    "existing": ("old.npy", "'old.npy' exists; --force overwrites it"),
    "input": ("a.png", "'a.png' is an input"),
    "linked input": ("link.png", "'link.png' is an input"),
    "folder": ("folder.npy", "'folder.npy' exists and is not a file"),
    "no folder": ("none/kernel.npy", "'none/kernel.npy' cannot be written: No such file"),
    "file as folder": ("a.png/kernel.npy", "'a.png/kernel.npy' cannot be written: "),
    "long name": ("x" * 300 + ".npy", "cannot be written: File name too long"),
    "device": ("device.npy", "'device.npy' exists and is not a file"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="links, devices and messages of POSIX")
@pytest.mark.parametrize("case", OUTPUTS)
def test_wrong_outputs_exit_with_4_before_the_work(pair, save, capsys, monkeypatch, case):
    monkeypatch.setattr("fastkernel.cli.estimate.read_picture", None)  # the work would call it
    Path("link.png").symlink_to("a.png")
    Path("device.npy").symlink_to("/dev/null")
    Path("folder.npy").mkdir()
    save("old.npy", BLUR)
    name, message = OUTPUTS[case]
    force = ["--force"] if case != "existing" else []
    code, line = failure([*pair, "-o", name, *force], capsys)
    assert code == 4
    assert message in line


def test_png_output_needs_pillow_before_the_work(save, capsys, monkeypatch):
    save("a.npy", SCENE)
    monkeypatch.setitem(sys.modules, "PIL", None)
    arguments = ["estimate", "a.npy", "a.npy", "--size", "3", "-o", "kernel.png"]
    code, line = failure(arguments, capsys)
    assert (code, "pip install 'fastkernel[cli]'" in line) == (4, True)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_exits_with_4(pair, capsys):
    Path("locked").mkdir(0o500)
    assert failure([*pair, "-o", "locked/kernel.npy"], capsys)[0] == 4


@pytest.mark.parametrize(
    ("problem", "expected"),
    [(OSError(28, "No space left on device"), 4), (KeyboardInterrupt(), 130)],
)
@pytest.mark.parametrize("step", ["os.fsync", "Path.replace"])
def test_a_failed_write_leaves_the_old_file(
    pair, save, capsys, monkeypatch, step, problem, expected
):
    def fail(*_):
        raise problem

    save("kernel.npy", BLUR)
    before = folder_names()
    monkeypatch.setattr(f"fastkernel.cli.output.{step}", fail)
    assert main([*pair, "-o", "kernel.npy", "--force"]) == expected
    assert capsys.readouterr().err.count("\n") == 1
    assert_array_equal(np.load("kernel.npy"), BLUR)
    assert folder_names() == before


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")
def test_written_file_has_ordinary_rights_and_follows_links(pair):
    Path("link.npy").symlink_to("target.npy")
    mask = os.umask(0o027)
    try:
        assert main([*pair, "-o", "link.npy", "--force"]) == 0
    finally:
        os.umask(mask)
    assert Path("link.npy").is_symlink()
    assert Path("target.npy").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 3, "not enough memory for images of this size"),
        (OSError(5, "Input/output error"), 4, "[Errno 5] Input/output error"),
    ],
)
def test_interruptions(pair, capsys, monkeypatch, problem, code, message):
    def fail(*_args, **_options):
        raise problem

    monkeypatch.setattr("fastkernel.estimate_kernel", fail)
    assert failure(pair, capsys) == (code, f"fastkernel: error: {message}\n")


def test_debug_shows_the_traceback(save, capsys):
    assert main(["estimate", "none.png", "b.png", "--size", "3", "--debug"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("fastkernel: error: 'none.png' cannot be read")


def table_of(shape, columns, scale=1.0, error=1e-3):
    kernel = np.random.default_rng(0).standard_normal(shape) * scale
    return kernel, kernel_table(kernel, np.full(shape, error * scale), columns)


def test_table_shrinks_with_the_terminal():
    kernel, lines = table_of((3, 9), 120)
    assert "each above its standard error" in lines[0]
    assert_allclose(np.array([x.split() for x in lines[1::2]], float), kernel, atol=1e-4)
    kernel, lines = table_of((3, 9), 80)
    assert lines[0] == "taps, standard errors ±0.001 to ±0.001"
    assert_allclose(np.array([x.split() for x in lines[1:]], float), kernel, atol=1e-2)
    kernel, lines = table_of((3, 26), 80)
    assert lines[0].startswith("taps in ninths of the largest, ")
    ninths = np.array([x.replace(".", "0").split() for x in lines[1:]], int)
    assert_array_equal(ninths, np.rint(9 * kernel / np.abs(kernel).max()))
    kernel, lines = table_of((3, 60), 80)
    assert len(lines) == 1
    assert "too wide to show; the largest tap is " in lines[0]


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1.0, 1e6])
def test_table_names_its_unit(scale):
    kernel, lines = table_of((2, 2), 80, scale)
    unit = re.search(r"in units of (1e[+-]\d+)", lines[0])
    taps = np.array([x.split() for x in lines[1::2]], float) * float(unit[1] if unit else 1)
    assert_allclose(taps, kernel, rtol=1e-2)
    assert (unit is None) == (scale == 1.0)


@pytest.mark.parametrize("error", [0.0, np.inf])
def test_table_of_a_kernel_without_finite_errors(error):
    lines = kernel_table(np.zeros((2, 2)), np.full((2, 2), error), 80)
    assert "0.000000" in lines[1]


def test_table_without_the_sign(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert "+/-0.0010" in "".join(table_of((2, 2), 80)[1])


def run(*command, **streams):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run([sys.executable, *command], text=True, timeout=120, check=False, **pipes)


HEAVY = ("numba", "scipy", "matplotlib", "pyfftw", "PIL", "tifffile")


def test_help_is_light():
    done = run(
        "-c",
        "import sys\nfrom fastkernel.cli import main\n"
        "codes = [main(['--help']), main(['--version']), main(['estimate', '--help'])]\n"
        f"sys.exit(max(codes) or ' '.join(set({HEAVY}) & set(sys.modules)) or 0)",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"fastkernel {fastkernel.__version__}\n" in done.stdout


def test_runs_as_a_module():
    done = run("-m", "fastkernel.cli", "--version")
    assert (done.returncode, done.stdout) == (0, f"fastkernel {fastkernel.__version__}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_closed_pipe_is_quiet(pair):
    reader, writer = os.pipe()
    os.close(reader)
    done = run("-m", "fastkernel.cli", *pair, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output(pair):
    with Path("/dev/full").open("w") as full:
        done = run("-m", "fastkernel.cli", *pair, stdout=full)
    assert done.returncode == 4
    assert done.stderr == "fastkernel: error: standard output: No space left on device\n"


@pytest.mark.parametrize(
    "more",
    [
        ["--method", "lad"],
        pytest.param(["--method", "richardson_lucy", "--num-iter", "400"], marks=pytest.mark.jit),
        ["--nonnegative", "--unit-sum"],
        ["--ridge", "gcv"],
        ["--ridge", "smooth:0.01"],
        ["--solver", "fista"],
        ["--background", "constant"],
        ["--background", "1"],
    ],
)
def test_methods_of_the_command(pair, more, capsys):
    kernel = estimated([*pair, "--transfer", "none", *more])
    assert_allclose(kernel, BLUR, atol=0.03)
    text = capsys.readouterr().out
    assert "nan" not in text
    assert ("iterations: " in text) == any(word in more for word in ("lad", "fista", "--num-iter"))
    assert ("background: " in text) == ("--background" in more)


def test_methods_without_error_bars_say_so(pair, capsys):
    assert main([*pair, "--method", "fft", "--taper", "0.1", "--transfer", "none"]) == 0
    assert "standard errors not known" in capsys.readouterr().out


def test_a_plot_is_drawn(pair):
    pytest.importorskip("matplotlib")
    assert main([*pair, "--solver", "fista", "--plot", "fit.png"]) == 0
    assert np.asarray(Image.open("fit.png")).ndim == 3


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--background", "5"], 2, "expected constant, or a degree from 0 to 4"),
        (["--background", "1", "--transfer", "srgb"], 2, "--background goes with stored values"),
        (["--ridge", "most"], 2, "expected a number of at least 0"),
        (["--plot", "fit.jpg"], 4, "has not the suffix a figure is written to"),
        (["--method", "fft", "--nonnegative"], 3, "nonnegative goes with method='lstsq'"),
        (["--solver", "reweighted"], 3, "solver must be one of"),
    ],
)
def test_methods_that_do_not_go_together(pair, capsys, more, code, message):
    found, text = failure([*pair, *more], capsys)
    assert found == code
    assert message in text


@pytest.mark.jit
def test_finds_the_size(tmp_path, capsys):
    source = data.camera()[100:220, 100:230]
    result = np.rint(ndimage.convolve(source.astype(float), np.full((3, 5), 1 / 15)))
    for name, image in (("a.png", source), ("b.png", result.astype(np.uint8))):
        Image.fromarray(image).save(tmp_path / name)
    main(["estimate", str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    told = capsys.readouterr().out
    assert told.startswith("3x5 kernel")
    assert "size: found; smaller ones leave" in told
