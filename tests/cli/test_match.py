"""``fastkernel match``: files in, a difference out."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import signal

from fastkernel.cli import fits as fits_files
from fastkernel.cli import main
from fastkernel.estimation.difference.match_images import match_images
from tests.shared import gaussian

SHAPE = (90, 100)
TOLD = ["--degree", "0", "-k", "9"]


@pytest.fixture(scope="module")
def images():
    """A science image, a reference, and a mask of the latter."""
    rng = np.random.default_rng(5)
    points = np.zeros(SHAPE)
    points.flat[rng.choice(points.size, 150, replace=False)] = 10 ** rng.uniform(2.5, 4.0, 150)
    clean = signal.fftconvolve(points, gaussian(25, 1.3), "same")
    science = 1.2 * signal.fftconvolve(clean, gaussian(9, 1.2), "same")
    noise = rng.standard_normal((2, *SHAPE))
    mask = np.zeros(SHAPE, np.int16)
    mask[40:42, 60] = 4
    return science + 40 + 2 * noise[0], clean + 30 + noise[1], mask


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    for name, image in zip(("s", "r", "m"), images, strict=True):
        np.save(f"{name}.npy", image)


def run(capsys, *arguments):
    code = main(["match", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.jit
def test_arrays_become_a_difference(images, capsys):
    science, reference, mask = images
    code, out, _ = run(
        capsys, "s.npy", "r.npy", "-o", "d.npz", *TOLD, "--reference-mask", "m.npy",
        "--science-variance", "4", "--reference-variance", "1",
    )  # fmt: skip
    assert code == 0
    assert "the reference convolved, decorrelated" in out
    assert out.endswith("wrote 'd.npz'\n")
    match = match_images(
        science,
        reference,
        9,
        degree=0,
        science_variance=4,
        reference_variance=1,
        reference_mask=mask,
    )
    with np.load("d.npz") as found:
        assert_array_equal(found["difference"], match.difference.astype(np.float32))
        assert_array_equal(found["variance"], match.variance.astype(np.float32))
        assert_array_equal(found["mask"], match.flags)
        assert np.isnan(found["difference"][41, 58])


@pytest.mark.jit
def test_json(capsys):
    code, out, _ = run(
        capsys, "s.npy", "r.npy", "-o", "d.npz", *TOLD, "--json", "--no-decorrelate",
        "--direction", "reference", "--background", "constant", "--saturation", "6000",
    )  # fmt: skip
    told = json.loads(out)
    assert code == 0
    assert told["direction"] == "reference"
    assert told["kernel_shape"] == [9, 9]
    assert told["decorrelated"] is False
    assert_allclose(told["scale"], 1.2, rtol=0.01)
    assert_allclose(told["quality"]["score_std"], 1, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["s.npy", "r.npy", "-o", "d.png"], 4, "none of the suffixes a difference is written to"),
        (["s.npy", "no.npy", "-o", "d.npz"], 3, "'no.npy' cannot be read"),
        (["s.npy", "r.npy", "-o", "r.npy"], 4, "none of the suffixes"),
        (["s.npy", "r.npy", "-o", "d.npz", "--degree", "5"], 2, "a degree from 0 to 4, got '5'"),
        (["s.npy", "r.npy", "-o", "d.npz", "--background", "9"], 2, "degree from 0 to 4, got '9'"),
        (["s.npy", "r.npy", "-o", "d.npz", "--saturation", "nan"], 2, "expected a number"),
        (["s.npy", "r.npy", "-o", "d.npz", "--science-mask", "[M]"], 2, "is no FITS file"),
        (["s.npy", "r.npy", "-o", "d.npz", "--science-variance", "-1"], 2, "at least 0, got '-1'"),
        (["s.npy", "r.npy", "-o", "d.npz", "--science-variance", "0"], 3, "greater than 0"),
        (["s.npy", "r.npy", "-o", "d.npz", "-k", "99"], 3, "kernel_shape must fit inside"),
        (["s.npy", "c.npy", "-o", "d.npz"], 3, "'c.npy' has 3 channels; give images of one"),
    ],
)
def test_refusals(capsys, arguments, code, said):
    np.save("c.npy", np.zeros((*SHAPE, 3)))
    found, _, error = run(capsys, *arguments)
    assert found == code
    assert said in error


def test_fits_without_astropy(capsys, monkeypatch):
    def missing():
        msg = "FITS needs astropy: pip install 'fastkernel[fits]'"
        raise ImportError(msg)

    monkeypatch.setattr(fits_files, "astropy_fits", missing)
    monkeypatch.setattr("fastkernel.cli.match.astropy_fits", missing)
    assert run(capsys, "a.fits", "r.npy", "-o", "d.npz")[::2] == (
        3,
        "fastkernel: error: 'a.fits': FITS needs astropy: pip install 'fastkernel[fits]'\n",
    )
    code, _, error = run(capsys, "s.npy", "r.npy", "-o", "d.fits")
    assert code == 4
    assert error.endswith("or write .npz\n")


@pytest.fixture
def fits():
    return pytest.importorskip("astropy.io.fits")


@pytest.fixture
def files(fits, images):
    """FITS files: the science image beside others, the reference as scaled integers with gaps."""
    science, reference, mask = images
    header = fits.Header()
    header["OBJECT"], header["CRVAL1"], header["EXPTIME"] = "field", 12.5, 30.0
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(science.astype(np.float32), header, name="SCI"),
            fits.ImageHDU(np.full(SHAPE, 4.0, np.float32), name="VAR"),
            fits.ImageHDU(mask, name="MASK"),
        ]
    ).writeto("s.fits")
    levels = np.rint(reference * 10).astype(np.int16)
    levels[20, 30] = -32768
    unit = fits.PrimaryHDU(levels)
    unit.header["BSCALE"], unit.header["BLANK"] = 0.1, -32768
    unit.writeto("r.fits")
    return levels


@pytest.mark.jit
def test_fits_files_become_one(fits, files, images, capsys):
    code, _, error = run(
        capsys, "s.fits", "r.fits", "-o", "d.fits", *TOLD, "--science-mask", "[mask]",
        "--science-variance", "s.fits[2]", "--reference-variance", "1",
    )  # fmt: skip
    assert (code, error) == (0, "")
    reference = files * 0.1
    reference[20, 30] = np.nan
    match = match_images(
        images[0].astype(np.float32),
        reference.astype(np.float32),
        9,
        degree=0,
        science_mask=images[2],
        science_variance=4,
        reference_variance=1,
    )
    with fits.open("d.fits") as found:
        assert [unit.name for unit in found] == ["PRIMARY", "VARIANCE", "MASK"]
        assert_allclose(found[0].data, match.difference, rtol=1e-4, atol=1e-3)
        assert_allclose(found[1].data, match.variance, rtol=1e-4)
        assert_array_equal(found[2].data, match.flags)
        header = found[0].header
    assert (header["OBJECT"], header["CRVAL1"], header["EXPTIME"]) == ("field", 12.5, 30.0)
    assert header["FKCONV"] == "reference"
    assert [header[f"FKBIT{bit}"] for bit in (0, 5)] == ["SCIENCE", "NEIGHBOUR"]
    assert header["BITPIX"] == -32
    assert "EXTNAME" not in header
    assert np.isnan(match.difference[21, 32])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s.fits[NO]", "has no image 'NO' of two axes; it holds 0 PRIMARY, 1 SCI (an image)"),
        ("s.fits[0]", "has no image '0' of two axes"),
        ("no.fits", "'no.fits' cannot be read: No such file"),
        ("bad.fits", "'bad.fits' "),
    ],
)
def test_refused_fits(fits, files, capsys, name, said):
    Path("bad.fits").write_bytes(b"SIMPLE  = rubbish" * 9)
    code, _, error = run(capsys, name, "r.npy", "-o", "d.npz")
    assert code == 3
    assert said in error


def test_fits_files_may_be_too_large(fits, files, capsys):
    code, _, error = run(capsys, "s.fits", "r.fits", "-o", "d.fits", "--max-pixels", "100")
    assert code == 3
    assert "90 x 100 pixels are more than --max-pixels 100" in error
