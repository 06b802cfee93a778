"""Reports: what they say is what is so, and a page needs nothing but itself."""

import base64
import re
import sys
from html.parser import HTMLParser
from io import BytesIO

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from scipy import linalg, signal
from skimage import data

from fastkernel import estimate_kernel, normal_equations, psf
from fastkernel.estimation.quality import Plane, Verdict
from fastkernel.estimation.report.contents import nested_residuals, residual_lines
from fastkernel.estimation.report.looks import Look
from fastkernel.estimation.report.untold import least_told, words_for

CAMERA = data.camera()[100:172, 100:190].astype(float)
BLUR = psf.gaussian(5, 1.0)
LINE, TAP = np.full((1, 5), 0.2), np.ones((1, 1))


def noisy(kernel, deviation=1.0):
    exact = naive.convolve(CAMERA, kernel)
    return exact + np.random.default_rng(0).normal(0, deviation, exact.shape)


def fitted(kernel=BLUR, **options):
    result = noisy(kernel)
    return estimate_kernel(CAMERA, result, kernel.shape, **options), result


# What stands without an end.
VOID = {"meta", "br", "path", "use", "image", "circle", "rect", "stop"}


class _Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.elements if tag == name]


def page_of(fit, *images, **options):
    text = fit.report(*images, format="html", **options)
    page = _Page(text)
    assert not page.open
    return text, page


@pytest.fixture(scope="module")
def usual():
    """A fit, its result, and its page: text and elements."""
    fit, result = fitted()
    return fit, result, *page_of(fit, CAMERA, result, title="<b>a & b</b>")


@pytest.mark.parametrize("kernel", [LINE, TAP, psf.gaussian(12, 2.0)])
def test_a_page_needs_nothing_else(kernel):
    fit, result = fitted(kernel)
    text, page = page_of(fit, CAMERA, result)
    assert len(text.encode()) < 1_000_000
    assert text.startswith("<!DOCTYPE html>")
    for tag, attrs in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "img"}
        for name, value in attrs.items():
            if name in {"href", "xlink:href", "src"}:
                assert value.startswith(("#", "data:image/png;base64,"))
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    # The names of no markup but XML's own are addresses.
    addresses = set(re.findall(r"https?://[^\s\"<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_a_page_is_for_every_screen_and_eye(usual):
    _, _, text, page = usual
    (viewport,) = (meta for meta in page.all("meta") if meta.get("name") == "viewport")
    assert "width=device-width" in viewport["content"]
    assert page.all("html") == [{"lang": "en"}]
    pictures = page.all("svg")
    assert len(pictures) == len(page.all("figure")) >= 7
    for picture in pictures:
        assert picture["role"] == "img"
        assert len(picture["aria-label"]) > 20
        assert picture["fill"] == "currentColor"
        # As wide as a small telephone shows without shrinking.
        assert float(picture["width"].removesuffix("pt")) * 96 / 72 <= 360
    assert "stroke: #000000" not in text
    assert "prefers-color-scheme: dark" in text


def test_a_page_says_what_was_found(usual):
    fit, result, _, page = usual
    words = " ".join(page.words)
    verdict = fit.judge(CAMERA, result)
    for part in (verdict.belief, *verdict.reasons, f"{fit.residual_rms:.4g} rms over"):
        assert part in words
    for heading in ("The kernel", "What is left unexplained", "Its size", "What the source tells"):
        assert heading in words
    cells = [word for word in page.words if re.fullmatch(r"-?[\d.]+", word.strip())]
    assert_allclose(np.array(cells[-25:], float), fit.kernel.ravel(), atol=1e-4)
    bars = [word for word in page.words if word.startswith("±")]
    got = np.array([bar.removeprefix("±") for bar in bars], float)
    assert_allclose(got, fit.standard_errors.ravel(), rtol=0.06)


def test_words_are_escaped(usual):
    _, _, text, page = usual
    assert "<b>" not in text
    assert page.words.count("<b>a & b</b>") == 2  # title and heading


def test_a_page_leaves_out_what_is_not_there():
    fit = fitted()[0]
    text, page = page_of(fit)  # the result is gone
    assert "What is left unexplained" not in text
    assert len(page.all("svg")) == 6
    robust = estimate_kernel(CAMERA, noisy(BLUR), 5, method="lad", solver="reweighted")
    text, page = page_of(robust)
    assert "standard errors not known" in text
    assert "What the source tells" not in text
    assert len(page.all("svg")) == 2  # the taps, and the history


def test_without_images_it_takes_those_that_were_fitted():
    fit, result = fitted()
    assert fit.report() == fit.report(CAMERA, result)
    with pytest.raises(ValueError, match=r"report needs both images .*, got no result; pass it"):
        fit.report(CAMERA)
    with pytest.raises(ValueError, match="got no source"):
        fit.report(result=result)


def test_a_report_has_a_format_and_a_file(tmp_path):
    fit, result = fitted(TAP)
    with pytest.raises(ValueError, match=r"format must be one of 'text', 'html', got 'pdf'"):
        fit.report(format="pdf")
    for name in ("text", "html"):
        path = tmp_path / name
        text = fit.report(CAMERA, result, format=name, path=path, title="± é")
        assert len(re.sub(r"id=\"\w+\"|#\w+", "", path.read_text(encoding="utf-8"))) > 500
        assert path.read_text(encoding="utf-8") == text
    with pytest.raises(OSError, match="nowhere"):
        fit.report(path=tmp_path / "nowhere" / "a.txt")


def test_a_page_needs_matplotlib_and_text_does_not(monkeypatch):
    fit, result = fitted()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert fit.report(CAMERA, result).startswith("5×5 kernel\nverdict: ")
    with pytest.raises(
        ImportError, match=r"figures need matplotlib: pip install 'fastkernel\[plot"
    ):
        fit.report(CAMERA, result, format="html")


def test_text_says_what_was_found():
    fit, result = fitted()
    lines = fit.report(CAMERA, result).splitlines()
    verdict = fit.judge(CAMERA, result)
    assert lines[:2] == ["5×5 kernel", f"verdict: {verdict.belief}"]
    assert [f"  because {reason}" for reason in verdict.reasons] == lines[
        2 : 2 + len(verdict.reasons)
    ]
    start = lines.index("taps, each above its standard error") + 1
    taps = np.array([line.split() for line in lines[start : start + 10 : 2]], float)
    bars = np.array([line.replace("±", " ").split() for line in lines[start + 1 : start + 10 : 2]])
    assert_allclose(taps, fit.kernel, atol=1e-3)
    assert_allclose(bars.astype(float), fit.standard_errors, rtol=0.1)
    for heading in ("what is left unexplained", "what smaller kernels leave"):
        assert heading in lines
    assert all(len(line) < 160 for line in lines)


def test_a_verdict_that_is_given_is_told():
    fit, result = fitted()
    mine = Verdict("believe it with care", ("I say so",), True, ("try harder",))
    text = fit.report(CAMERA, result, verdict=mine)
    assert text.splitlines()[1:4] == [
        "verdict: believe it with care",
        "  because I say so",
        "  what would help: try harder",
    ]


def test_a_selection_is_shown_in_place_of_smaller_kernels():
    fit, result = fitted(TAP)

    class Selection:
        def plot(self):
            from matplotlib.figure import Figure

            figure = Figure()
            figure.subplots().plot([3, 1, 2])
            return figure

        def __str__(self):
            return "5×5 is enough"

    assert "5×5 is enough" in fit.report(selection=Selection())
    text, _ = page_of(fit, CAMERA, result, selection=Selection())
    assert "How well kernels of every size do" in text
    assert "Smaller kernels" not in text


def test_channels_and_the_pair_that_is_pictured():
    images = [CAMERA, CAMERA[::-1]]
    results = [x + 10 * i + noisy(TAP) - CAMERA for i, x in enumerate(images)]
    fit = estimate_kernel(images, results, 1, background="constant")
    text, _ = page_of(fit, images, results, pair=1)
    assert "Of 2 pairs, channels counted apart, number 2." in text
    one = fit.report(images[1], results[1], pair=1)
    assert f"over {results[1].size} pixels" in one


def strips(residual, used=None, rows=20):
    for top in range(0, len(residual), rows):
        part = residual[top : top + rows]
        yield 0, Plane(part, part, part, None if used is None else used[top : top + rows])


@pytest.mark.parametrize("shape", [(90, 70), (450, 30), (10, 410)])
def test_a_picture_is_of_means(shape, rng):
    residual = rng.standard_normal(shape)
    used = rng.random(shape) < 0.5
    used[:6, :6] = False
    look = Look([shape], 0)
    planes = list(look.watch(strips(residual, used)))
    assert sum(len(plane.residual) for plane in planes) == shape[0]
    step = look.factor
    assert step == (1 if max(shape) < 200 else 3)
    blocks = [
        [
            (residual[i : i + step, j : j + step], used[i : i + step, j : j + step])
            for j in range(0, shape[1], step)
        ]
        for i in range(0, shape[0], step)
    ]
    want = [[part[mask].mean() if mask.any() else np.nan for part, mask in row] for row in blocks]
    assert_allclose(look.picture, want, rtol=1e-9)


def test_a_spectrum_is_the_mean_periodogram_of_tiles(rng):
    residual = rng.standard_normal((128, 192)).cumsum(axis=1)
    look = Look([residual.shape], 0)
    list(look.watch(strips(residual, rows=128)))
    window = np.sin(np.pi * (np.arange(64) + 0.5) / 64)
    power = np.zeros((64, 64))
    for i in range(0, 128, 64):
        for j in range(0, 192, 64):
            tile = residual[i : i + 64, j : j + 64] * np.outer(window, window)
            power += np.abs(np.fft.fft2(tile)) ** 2
    assert_allclose(look.spectrum, np.fft.fftshift(power) / power.mean(), rtol=1e-9)


def test_coarse_detail_of_noise_is_that_of_noise(rng):
    white = rng.standard_normal((256, 256))
    soft = signal.convolve2d(white, np.ones((5, 5)), "same")
    looks = []
    for residual in (white, soft):
        looks.append(Look([residual.shape], 0))
        list(looks[-1].watch(strips(residual, rows=256)))
    assert looks[0].coarse == pytest.approx(1, abs=0.1)
    assert looks[1].coarse > 4
    nothing = Look([(64, 64)], 0)
    list(nothing.watch(strips(np.zeros((64, 64)))))
    assert nothing.spectrum is None
    assert np.isnan(nothing.coarse)


def test_patterns_are_the_least_eigenvectors():
    equations = normal_equations(CAMERA, noisy(BLUR), 5)
    fit = equations.solve()
    patterns = least_told(equations.gram, fit.covariance, fit.kernel, 3)
    x = naive.design_matrix(CAMERA, (5, 5))
    values, vectors = linalg.eigh(x.T @ x)
    for i, pattern in enumerate(patterns):
        overlap = abs(float(pattern.taps.ravel() @ vectors[:, i]))
        assert overlap == pytest.approx(1, abs=1e-6)
        assert pattern.share == pytest.approx(values[i] / values[-1], rel=1e-6)
        # The error of a coefficient along an eigenvector is that of one regressor by itself.
        deviation = fit.residual_rms * np.sqrt(fit.n_pixels / (fit.n_pixels - 25) / values[i])
        peak = np.abs(pattern.taps).max()
        assert pattern.taps.max() == peak
        assert pattern.error == pytest.approx(deviation * peak / fit.kernel.max(), rel=1e-6)


def test_what_patterns_look_like():
    down, across = np.mgrid[:8, :8]
    assert (
        words_for((-1.0) ** (down + across)) == "a chequerboard: every tap against its neighbours"
    )
    assert words_for((-1.0) ** down) == "rows of taps in turn up and down"
    assert words_for((-1.0) ** across) == "columns of taps in turn up and down"
    assert words_for(np.ones((8, 8)) + 0.1 * across) == "all taps alike: their sum"
    assert words_for(np.cos(2 * np.pi * down / 4)) == "waves of 4.0 taps from row to row"
    slanting = words_for(np.cos(2 * np.pi * (down + across) / 4))
    assert slanting == "slanting waves of 2.8 taps"


@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (1, 6), (21, 3)])
def test_what_smaller_kernels_leave(shape):
    equations = normal_equations(CAMERA, CAMERA + 1, shape)
    found = nested_residuals(equations, shape)
    assert found[-1][0] == shape
    assert 2 <= len(found) <= 9
    for (p, q), left in found:
        assert p <= shape[0]
        assert q <= shape[1]
        assert (shape[0] - p) % 2 == (shape[1] - q) % 2 == 0
        inner = np.pad(
            np.ones((p, q), bool), [((a - b) // 2,) * 2 for a, b in zip(shape, (p, q), strict=True)]
        )
        x = naive.design_matrix(CAMERA, shape)[:, inner.ravel()]
        i, j = shape[0] - 1 - (shape[0] - 1) // 2, shape[1] - 1 - (shape[1] - 1) // 2
        rows, cols = CAMERA.shape[0] - shape[0] + 1, CAMERA.shape[1] - shape[1] + 1
        y = (CAMERA + 1)[i : i + rows, j : j + cols].ravel()
        rest = y - x @ np.linalg.lstsq(x, y)[0]
        assert left == pytest.approx(np.sqrt(np.mean(rest**2)), rel=1e-6)


def test_lines_say_what_facts_are():
    fit, result = fitted()
    facts = fit.judge(CAMERA, result).facts
    lines = residual_lines(facts, 1.5)
    assert lines[0].startswith(f"{facts.rms:.4g} rms, at most {facts.largest:.4g}, over")
    assert f"{100 * facts.misfit:.2g} % of the result's contrast" in lines[1]
    assert lines[3] == "coarse detail has 1.5 times the power that it has in white noise"
    assert len(residual_lines(facts, np.nan)) == 3


def test_pictures_hold_the_pixels_once(usual):
    _, result, _, page = usual
    images = [attrs["xlink:href"] for attrs in page.all("image")]
    sizes = [Image.open(BytesIO(base64.b64decode(uri.split(",")[1]))).size for uri in images]
    assert sizes.count((5, 5)) == 5  # taps, bars and three patterns
    assert (result.shape[1], result.shape[0]) in sizes
