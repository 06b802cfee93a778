"""The entries of the gallery: each a few lines that anyone can run, and the pictures they return.

The page shows these lines as they stand here. A function returns its panels by title: an image, a
kernel (64 pixels a side at most), or curves by name.
"""

import numpy as np
from scipy import ndimage

from bench import data, stars
from fastkernel import (
    convolve,
    estimate_kernel,
    estimate_kernel_field,
    inverse_filter,
    inverse_kernel,
    match_images,
    psf,
    richardson_lucy,
    select_kernel_shape,
    wiener,
)

PHOTO = data.camera()[60:316, 130:386]  # 256² of the photograph that everyone knows
HAND = np.array(
    [[0, 0, 2, 5, 3], [0, 4, 9, 2, 0], [2, 11, 5, 0, 0], [4, 8, 1, 0, 0], [2, 4, 2, 0, 0]]
) / np.float64(64)


def off(found, planted):
    """The largest error of a tap, in percent of the largest tap."""
    return f"off by {100 * np.abs(found - planted).max() / np.abs(planted).max():.2g} %"


def rms(found, wanted):
    """The root mean square of a difference, for a title."""
    return f"error {np.sqrt(np.mean((found - wanted) ** 2)):,.1f}"


def stack_overflow():
    """Which matrix made this picture from that one? The question, and everyone's answer to it.

    A filter with extended borders, rounded to 8 bits. The division is that of the answer which most
    people copy; the others are one word each.
    """
    result = np.rint(ndimage.convolve(PHOTO, HAND, mode="nearest"))
    ratio = np.fft.irfft2(np.fft.rfft2(result) / np.fft.rfft2(PHOTO), PHOTO.shape)
    found = {"the division of the answer": np.roll(ratio, (2, 2), (0, 1))[:5, :5]}
    for method in ("fft", "richardson_lucy", "lad", "lstsq"):
        found[method] = estimate_kernel(PHOTO, result, 5, method=method).kernel
    panels = {"source": PHOTO, "result": result, "planted": HAND}
    return panels | {f"{name},\n{off(taps, HAND)}": taps for name, taps in found.items()}


def descents():
    """The answer on Signal Processing (61043): a square, a Gaussian, and a descent to it.

    "Accelerate it", it ends. Or do not descend: the direct answer is exact.
    """
    square = np.zeros((200, 200))
    square[85:115, 85:115] = 1
    gauss = psf.gaussian(51, 4.0)
    result = convolve(square, gauss, "valid")
    curves = {}
    for solver in ("gradient_descent", "fista"):
        fit = estimate_kernel(square, result, 51, solver=solver, num_iter=300, tol=0)
        curves[solver] = dict(enumerate(fit.history["residual_rms"]))
    direct = estimate_kernel(square, result, 51).kernel
    panels = {"source": square, "result": result, f"direct, {off(direct, gauss)}": direct}
    return panels | {"what is left, by step": curves}


def linear_light():
    """GIMP and many cameras filter light, while a file holds sRGB levels.

    A fit to the levels is wrong, and looks like a kernel all the same.
    """
    levels = PHOTO / 255
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    blurred = ndimage.convolve(light, HAND, mode="nearest")
    again = np.where(blurred <= 0.0031308, 12.92 * blurred, 1.055 * blurred ** (1 / 2.4) - 0.055)
    source, result = (np.rint(255 * picture).astype(np.uint8) for picture in (levels, again))
    stored = estimate_kernel(source, result, 5)
    found = estimate_kernel(source, result, 5, light="auto")
    panels = {"source": source, "result": result, "planted": HAND}
    panels[f"stored values,\n{off(stored.kernel, HAND)}"] = stored.kernel
    return panels | {f"light: {found.light},\n{off(found.kernel, HAND)}": found.kernel}


def clipped():
    """A sharpening drives pixels beyond black and white, where the file cuts them off.

    By default the clipped pixels of whole grey levels are left out where they show.
    """
    source = PHOTO.astype(np.uint8)
    sharpen = np.array([[-1, -2, -1], [-2, 20, -2], [-1, -2, -1]]) / 8
    exact = ndimage.convolve(PHOTO, sharpen, mode="nearest")
    result = np.clip(np.rint(exact), 0, 255).astype(np.uint8)
    every = estimate_kernel(source, result, 3, saturation=(None, None))
    fit = estimate_kernel(source, result, 3)
    panels = {"result": result, "pixels that are fitted": fit.used, "planted": sharpen}
    panels[f"all pixels,\n{off(every.kernel, sharpen)}"] = every.kernel
    return panels | {f"without the clipped ones,\n{off(fit.kernel, sharpen)}": fit.kernel}


def motion():
    """A motion of 15 pixels, found between two pictures and taken out of the second one."""
    blur = psf.motion(15, 30)
    scene = data.camera()[50:326, 120:396]  # more than the frame shows
    moved = np.rint(ndimage.convolve(scene, blur))[10:-10, 10:-10]
    fit = estimate_kernel(PHOTO, moved, blur.shape, nonnegative=True)
    back = richardson_lucy(moved, fit.kernel)
    panels = {"source": PHOTO, f"moved,\n{rms(moved, PHOTO)}": moved}
    panels[f"kernel, {off(fit.kernel, blur)}"] = fit.kernel
    return panels | {f"richardson_lucy,\n{rms(back, PHOTO)}": back}


def noise():
    """One blur, one noise of two grey levels, three ways to undo it."""
    blur = psf.gaussian(15, 1.5)
    grain = 2 * np.random.default_rng(0).standard_normal(PHOTO.shape)
    blurred = (convolve(PHOTO, blur, "same", "circular") + grain).clip(0)
    restored = {
        "blurred": blurred,
        "division": inverse_filter(blurred, blur),
        "wiener": wiener(blurred, blur, boundary="circular"),
        "richardson_lucy": richardson_lucy(blurred, blur, boundary="circular"),
    }
    return {f"{name},\n{rms(found, PHOTO)}": found for name, found in restored.items()}


def cross():
    """The inverse of the cross, for which people ask. There is none that is exact.

    The cross removes a frequency. What comes nearest to an inverse, and what it leaves.
    """
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    panels = {"the cross": cross}
    for side in (9, 31):
        fit = inverse_kernel(cross, side)
        panels[f"inverse of {side}×{side}"] = fit.kernel
        panels[f"cross * inverse,\noff by {fit.max_deviation:.2f}"] = convolve(fit.kernel, cross)
    return panels


def star_field():
    """Two exposures of a sky, one of them sharper, and what changed between them.

    The kernel varies over the image; stars are saturated, pixels are dead, cosmic rays have struck.
    """
    sky = stars.field(stars.KINDS[1], 360, 1)
    match = match_images(sky.science, sky.reference, saturation=(None, 0.98 * stars.SATURATION))
    sigma = np.sqrt(sky.variances[1])
    plain = sky.science - np.nanmedian(sky.science) - sky.reference + np.nanmedian(sky.reference)
    shown = np.arcsinh((sky.science - np.nanmedian(sky.science)) / sigma)
    scores = match.difference / np.sqrt(match.variance)
    panels = {"science image": shown, "subtracted as they are": np.clip(plain / sigma, -6, 6)}
    return panels | {"matched, in deviations\nof the noise": np.clip(scores, -6, 6)}


def varying():
    """A blur that grows to the right and turns with the height, mapped from one pair of images."""
    rows, cols = np.mgrid[0:1:256j, 0:1:256j]
    scene = 100 * np.random.default_rng(0).random((256, 256))
    wide, tall, point = psf.gaussian(9, (0.7, 2)), psf.gaussian(9, (2, 0.7)), psf.gaussian(9, 0.7)
    shares = {0: cols * rows, 1: cols * (1 - rows), 2: 1 - cols}
    blurs = (wide, tall, point)
    result = sum(shares[i] * convolve(scene, blurs[i], "same", "mirror") for i in range(3))
    field = estimate_kernel_field(scene, result, 9, degree=2)
    places = [int(place) for place in np.linspace(20, 235, 5)]
    sheet = np.block([[field.kernel_at(row, col) for col in places] for row in places])
    true = [[sum(shares[i][r, c] * blurs[i] for i in range(3)) for c in places] for r in places]
    return {"planted": np.block(true), f"found,\n{off(sheet, np.block(true))}": sheet}


def size():
    """How large is the kernel? Nested kernels are held against pixels that were kept aside."""
    blur = psf.disk(3)
    result = np.rint(ndimage.convolve(PHOTO, blur, mode="mirror"))
    choice = select_kernel_shape(PHOTO, result, 15)
    square = {rows: left for (rows, cols), left in choice.curve.items() if rows == cols}
    found = estimate_kernel(PHOTO, result, choice.shape).kernel
    panels = {
        "result": result,
        "left of pixels held out,\nby the kernel's side": {"square kernels": square},
    }
    return panels | {f"{choice.shape} is chosen,\n{off(found, blur)}": found}


def ringing():
    """What stands beyond the frame is unknown. To take it for black rings far into the picture."""
    from skimage import restoration

    blur = psf.disk(5)
    scene = data.camera()[50:326, 120:396]
    blurred = ndimage.convolve(scene, blur)[10:-10, 10:-10]
    theirs = 255 * restoration.richardson_lucy(blurred / 255, blur, 30)
    ours = richardson_lucy(blurred, blur)
    panels = {f"blurred,\n{rms(blurred, PHOTO)}": blurred}
    panels[f"scikit-image,\n{rms(theirs, PHOTO)}"] = theirs
    return panels | {f"fastkernel,\n{rms(ours, PHOTO)}": ours}


def dask_over_zarr():
    """A store is convolved to another, and fitted again, by blocks that no one holds at once."""
    import tempfile

    import dask.array as da
    import zarr

    import fastkernel.dask as fkd

    with tempfile.TemporaryDirectory() as folder:
        scene = da.from_array(np.tile(PHOTO, (4, 4)), chunks=256)
        image = fkd.convolve(scene, HAND, "same", "mirror")
        image.to_zarr(f"{folder}/image.zarr")
        stored = da.from_zarr(zarr.open(f"{folder}/image.zarr", mode="r"))
        fit = fkd.estimate_kernel(scene, stored, 5)
        corner = np.asarray(stored[:256, :256])
    panels = {"a chunk of sixteen": corner, "planted": HAND}
    return panels | {f"found, {off(fit.kernel, HAND)}": fit.kernel}


ENTRIES = {
    "stack_overflow": "The question on Stack Overflow",
    "descents": "Signal Processing 61043",
    "linear_light": "A filter in linear light",
    "clipped": "A clipped sharpening",
    "motion": "Motion blur found, and undone",
    "noise": "Three ways to undo a blur",
    "cross": "The inverse of the cross",
    "star_field": "A star field matched",
    "varying": "A kernel that varies",
    "size": "A kernel's size chosen",
    "ringing": "Ringing at borders",
    "dask_over_zarr": "Dask over Zarr",
}
