import base64
import pickle
import re
import subprocess
import sys
from io import BytesIO

import naive
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from skimage import data

from fastkernel import KernelFit, convolve, estimate_kernel, inverse_kernel, psf
from fastkernel.estimation.display import bars_fact, plot_fit, plot_inverse, plot_recovery

IMAGE = data.camera()[60:124, 90:160].astype(float)
BLUR = psf.gaussian((5, 5), 0.9)
SHARPEN = np.array([[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]])
SOFT = np.array([[0, 0.1, 0], [0.1, 0.6, 0.1], [0, 0.1, 0]])
MOTION = np.full((1, 5), 0.2)

# What a picture weighs at the least that has something on it.
SOME_BYTES = 4000


def fitted(kernel, noise=0.5, **options):
    result = convolve(IMAGE, kernel, "valid")
    result += noise * np.random.default_rng(0).standard_normal(result.shape)
    return estimate_kernel(IMAGE, result, kernel.shape, **options), result


def panels_of(figure):
    return [panel for panel in figure.axes if panel.get_label() != "<colorbar>"]


def drawn_in(figure):
    return [panel.images[0] for panel in figure.axes if panel.images]


def pixels_of(png):
    with Image.open(BytesIO(png)) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize(
    ("kernel", "lowest", "colours"),
    [(BLUR, 0.0, "viridis"), (BLUR - 0.05, -1.0, "RdBu_r"), (SHARPEN, -1.0, "RdBu_r")],
)
def test_colours_of_a_kernel(kernel, lowest, colours):
    fit, _ = fitted(kernel, 0.0)
    figure = plot_fit(fit, title="mine")
    drawn = drawn_in(figure)[0]
    assert_allclose(drawn.get_array(), kernel, atol=1e-9)
    assert drawn.get_cmap().name == colours
    largest = np.abs(kernel).max()
    assert_allclose(drawn.get_clim(), (lowest * largest, largest), rtol=1e-9)
    assert figure.get_suptitle() == "mine"
    p, q = kernel.shape
    assert f"{p}x{q} kernel, lstsq, residual " in fit.plot().get_suptitle()


def test_noise_around_zero_is_no_negative_tap():
    kernel = BLUR.copy()
    kernel[0, 0] = -0.005 * BLUR.max()
    fit, _ = fitted(kernel, 0.0)
    assert drawn_in(fit.plot())[0].get_cmap().name == "viridis"


@pytest.mark.parametrize("rest", [-1.0, 1.0])
def test_one_huge_tap_does_not_hide_the_others_and_that_is_said(rest):
    kernel = np.full((9, 9), rest)
    kernel[4, 4] = 400.0
    figure = fitted(kernel, 0.0)[0].plot()
    panel, image = panels_of(figure)[0], drawn_in(figure)[0]
    assert image.get_clim()[1] == pytest.approx(1.0)
    assert "colours end at 1, the largest tap is 400" in panel.get_title()
    # A tap that is nothing but larger needs no such thing.
    assert "colours" not in panels_of(fitted(SHARPEN)[0].plot())[0].get_title()


@pytest.mark.parametrize("shape", [(3, 3), (4, 6), (9, 8)])
def test_ticks_count_taps_from_the_centre(shape):
    kernel = np.zeros(shape)
    centre = (shape[0] - 1) // 2, (shape[1] - 1) // 2
    kernel[centre] = 1
    panel = panels_of(fitted(kernel)[0].plot())[0]
    left, right, bottom, top = panel.images[0].get_extent()
    # The centre tap is the square around (0, 0).
    assert (-left - 0.5, -top - 0.5) == centre[::-1]
    assert (right - left, bottom - top) == shape[::-1]
    for axis in (panel.xaxis, panel.yaxis):
        ticks = np.array(axis.get_ticklocs())
        assert_array_equal(ticks, np.rint(ticks))
        assert 0 in ticks


@pytest.mark.parametrize(("kernel", "written"), [(SHARPEN, True), (psf.gaussian(11, 2.0), False)])
def test_taps_of_small_kernels_are_written_into_their_cells(kernel, written):
    fit, _ = fitted(kernel, 0.0)
    panel = panels_of(fit.plot())[0]
    assert bool(panel.texts) == written
    for text in panel.texts:
        x, y = text.get_position()
        assert float(text.get_text()) == pytest.approx(kernel[y + 1, x + 1], abs=0.005)


@pytest.mark.parametrize("kernel", [MOTION, MOTION.T, np.full((1, 41), 1 / 41)])
def test_lines_of_taps_are_large_enough_to_be_seen(kernel):
    figure = fitted(kernel)[0].plot()
    figure.canvas.draw()
    panel = panels_of(figure)[0]
    box = panel.get_window_extent()
    long, short = max(box.width, box.height), min(box.width, box.height)
    assert short >= 0.4 * figure.dpi
    assert long >= 2 * figure.dpi
    assert (box.width > box.height) == (kernel.shape[1] > 1)
    # A single tap has no ticks of halves.
    assert not (panel.yaxis if kernel.shape[0] == 1 else panel.xaxis).get_visible()
    assert max(figure.get_size_inches()) / min(figure.get_size_inches()) < 3


def test_bars_are_shares_of_the_largest_tap_and_drawn_where_they_differ():
    fit, _ = fitted(BLUR)
    assert fit.standard_errors.max() > 1.1 * fit.standard_errors.min()
    _, bars = drawn_in(fit.plot())
    assert_allclose(bars.get_array(), 100 * fit.standard_errors / fit.kernel.max())
    assert bars.get_clim()[0] == 0
    noise = np.random.default_rng(0).standard_normal((200, 200))
    result = noise[1:-1, 1:-1] + np.random.default_rng(1).standard_normal((198, 198))
    even = estimate_kernel(noise, result, 3)
    figure = even.plot()
    assert len(panels_of(figure)) == 1
    share = 100 * even.standard_errors.max() / even.kernel.max()
    title = panels_of(figure)[0].get_title()
    assert title == f"kernel\nerror bars: at most {share:.2g} % of the largest tap"


def test_history_has_its_panel():
    fit, _ = fitted(BLUR, method="lad")
    _, panel = panels_of(fit.plot())
    assert panel.get_title() == "objective"
    assert_array_equal(panel.lines[0].get_ydata(), fit.history["objective"])
    assert panel.get_xlabel() == "iteration"


@pytest.mark.parametrize("options", [{}, {"background": 1}, {"method": "lad"}])
def test_the_residual_of_images_is_drawn(options):
    fit, result = fitted(BLUR, **options)
    result = result + (fit.background is not None)
    *_, left = drawn_in(fit.plot(IMAGE, result))
    assert_allclose(left.get_array(), fit.residual(IMAGE, result))
    if fit.background is None:
        want = result - naive.convolve(IMAGE, fit.kernel)
        assert_allclose(left.get_array(), want, rtol=0, atol=1e-9)
    low, high = left.get_clim()
    assert low == -high
    assert high == pytest.approx(np.abs(left.get_array()).max())


def test_a_wrong_pixel_does_not_hide_the_residual_and_that_is_said():
    fit, result = fitted(BLUR)
    result[5, 5] += 500
    panel = panels_of(fit.plot(IMAGE, result))[-1]
    assert 1 < panel.images[0].get_clim()[1] < 4
    assert re.search(r"colours end at ±[\d.]+, the largest is 5e\+02", panel.get_title())


def test_the_residual_needs_both_images():
    fit, result = fitted(BLUR)
    with pytest.raises(ValueError, match=r"plot needs both images .*, got no result; pass it"):
        fit.plot(IMAGE)
    with pytest.raises(ValueError, match="got no source"):
        fit.plot(result=result)
    # A residual of zeros, and one with a hole, have a picture too.
    drawn = drawn_in(plot_fit(fit, residual=np.zeros((6, 7))))
    assert drawn[-1].get_clim() == (-1, 1)
    hole = np.where(np.eye(6) > 0, np.nan, 2.0)
    assert drawn_in(plot_fit(fit, residual=hole))[-1].get_clim() == (-2, 2)


def test_every_tap_of_a_large_inverse_can_be_told_from_zero():
    fit = inverse_kernel(SOFT, 41)
    figure = plot_inverse(fit, title="mine")
    panel, image = panels_of(figure)[0], drawn_in(figure)[0]
    largest = np.abs(fit.kernel).max()
    assert_allclose(image.get_clim(), (-largest, largest))
    assert "logarithmic colours, linear within ±1e-03" in panel.get_title()
    # Colours of taps a hundredth of the largest are a good part of the scale away from zero's.
    assert abs(image.norm(0.01 * largest) - image.norm(0.0)) > 0.1
    assert image.norm(0.0) == pytest.approx(0.5)
    small = panels_of(inverse_kernel(SOFT, 5).plot())[0]
    assert "colours" not in small.get_title()
    assert len(small.texts) == 25


def test_ticks_of_a_deviation_count_from_the_one():
    fit = inverse_kernel(SOFT, (9, 8), delay=(3, 6))
    left, _, _, top = panels_of(fit.plot())[1].images[0].get_extent()
    assert (-top - 0.5, -left - 0.5) == fit.delay


def test_a_sharpener_shows_its_small_taps_on_a_logarithmic_scale():
    kernel = -np.outer([1, 2, 1], [1, 2, 1]) / 16
    kernel[1, 1] = 5.0
    fit, _ = fitted(kernel)
    panel, image = panels_of(fit.plot())[0], drawn_in(fit.plot())[0]
    assert_allclose(image.get_clim(), (-5, 5), rtol=1e-3)
    assert "logarithmic colours" in panel.get_title()
    shares = image.norm(np.array([-0.125, 0.0, 5.0]))
    assert shares[1] == pytest.approx(0.5)
    assert shares[1] - shares[0] > 0.15  # 0.0125 on a scale without logarithms


def test_taps_of_nine_a_side_are_written_and_fit_their_cells():
    kernel = -2 * psf.gaussian(9, 1.6)
    kernel[4, 4] += 3
    figure = fitted(kernel, 0.0)[0].plot()
    figure.canvas.draw()
    panel = panels_of(figure)[0]
    assert len(panel.texts) == 81
    cell = panel.get_window_extent().width / 9
    for text in panel.texts:
        x, y = text.get_position()
        assert float(text.get_text()) == pytest.approx(kernel[y + 4, x + 4], abs=0.006)
        assert text.get_window_extent().width < cell


@pytest.mark.parametrize("size", [7, 15])
@pytest.mark.parametrize("delay", [(2, 3), (4, 5)])
def test_the_delay_is_marked(size, delay):
    fit = inverse_kernel(SOFT, size, delay=delay)
    inverse, deviation = panels_of(fit.plot())
    assert f"marked: the 1, at delay ({delay[0]}, {delay[1]})" in deviation.get_title()
    half, centre = (size - 1) // 2, (SOFT.shape[0] - 1) // 2
    wanted = [(delay[1] - centre - half, delay[0] - centre - half), (0, 0)]
    for panel, (col, row) in zip((inverse, deviation), wanted, strict=True):
        places = [tuple(np.ravel(line.get_data())) for line in panel.lines]
        places += [(box.get_x() + 0.5, box.get_y() + 0.5) for box in panel.patches]
        assert places == [(col, row)] * 2  # black within white


def test_figure_of_a_recovery_has_panels_of_one_height():
    image = np.arange(72.0).reshape(8, 9)
    errors = np.full((5, 5), 0.01)
    figure = plot_recovery(image[:, :8], image[:, 1:], BLUR, BLUR + 0.02, errors)
    figure.canvas.draw()
    heights = [panel.get_window_extent().height for panel in figure.axes[:5]]
    assert_allclose(heights, heights[0], rtol=0.02)
    assert figure.axes[4].get_title() == "estimated less true\nin standard errors"
    assert_allclose(figure.axes[4].images[0].get_array(), 2.0)


def test_figure_of_a_recovery_shares_its_scales():
    source = np.full((8, 9), 3.0)
    source[0, 0] = 9.0
    figure = plot_recovery(source, source / 9, BLUR, BLUR * 2)
    clims = [panel.images[0].get_clim() for panel in figure.axes[:4]]
    assert clims[0] == clims[1] == (1 / 3, 9.0)
    assert clims[2] == clims[3] == (0.0, 2 * BLUR.max())


def test_a_figure_shows_itself_and_travels():
    figure = fitted(SHARPEN)[0].plot()
    picture = pixels_of(figure._repr_png_())
    width, height = figure.get_size_inches() * figure.dpi
    assert picture.shape[:2] == pytest.approx((height, width), abs=1)
    twin = pickle.loads(pickle.dumps(figure))
    assert twin.get_suptitle() == figure.get_suptitle()
    assert pixels_of(twin._repr_png_()).shape == picture.shape


SHOWN = """
import sys
import numpy as np
from fastkernel import estimate_kernel
image = np.random.default_rng(0).random((30, 30))
figure = estimate_kernel(image, image[1:-1, 1:-1], 3).plot()
assert figure._repr_png_()[:4] == b"\\x89PNG"
assert "matplotlib.pyplot" not in sys.modules
"""


@pytest.mark.jit
def test_figures_need_no_pyplot():
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def test_figures_without_matplotlib(monkeypatch):
    fit, _ = fitted(BLUR)
    inverse = inverse_kernel(SOFT, 5)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (fit.plot, inverse.plot, lambda: plot_recovery(IMAGE, IMAGE, BLUR, BLUR)):
        with pytest.raises(ImportError, match=r"fastkernel\[plot\]"):
            draw()
    for answer in (fit, inverse):
        assert "<img" not in answer._repr_html_()
        assert "<table>" in answer._repr_html_()


@pytest.mark.parametrize("size", [5, 9])
def test_what_a_notebook_shows(size):
    kernel = psf.gaussian(size, 0.9)
    for answer in (fitted(kernel)[0], inverse_kernel(SOFT, size)):
        shown = answer._repr_html_()
        encoded = re.search(r'src="data:image/png;base64,([^"]+)"', shown)[1]
        picture = base64.b64decode(encoded)
        assert len(picture) > SOME_BYTES
        assert len(np.unique(pixels_of(picture))) > 20
        taps = re.findall(r"<caption>taps</caption>(.*?)</table>", shown)
        assert len(taps) == (size == 5)
        for table in taps:
            cells = [re.findall(r"<td>(.*?)</td>", row) for row in table.split("</tr>")[:-1]]
            largest = np.abs(answer.kernel).max()
            assert_allclose(np.array(cells, float), answer.kernel, rtol=0, atol=1e-3 * largest)
        names = ["residual", "method", *(["error bars"] if isinstance(answer, KernelFit) else [])]
        for name in names:
            assert f"<th>{name}</th>" in shown


def test_how_large_error_bars_are_in_words():
    fit, _ = fitted(BLUR)
    share = 100 * fit.standard_errors.max() / fit.kernel.max()
    words = f"at most {share:.2g} % of the largest tap"
    assert bars_fact(fit.kernel, fit.standard_errors) == {"error bars": words}
    assert bars_fact(fit.kernel, np.full((5, 5), np.nan)) == {}
    nothing = bars_fact(np.zeros((2, 2)), np.zeros((2, 2)))
    assert nothing == {"error bars": "at most 0 % of the largest tap"}
