"""SFFT's customised subtraction of two images, run by an environment of its own.

Reads ``fields.npz`` from the folder that it is given, with ``reference`` and ``science``, images
less their sky without a pixel that is not finite, and which pixels are ``chosen`` to fit. Leaves
``difference.npy`` and ``kernels.npy``, those at ``places``, and prints the seconds that it took.
"""

import sys
import time
from pathlib import Path

import numpy as np

HALF, DEGREE = 7, 2


def main(folder: Path, workers: int) -> None:
    from astropy.io import fits
    from sfft.CustomizedPacket import Customized_Packet
    from sfft.utils.SFFTSolutionReader import Realize_MatchingKernel

    given = np.load(folder / "fields.npz")
    files = {}
    for name in ("reference", "science"):
        for kind, image in (
            ("", given[name]),
            (" chosen", np.where(given["chosen"], given[name], 0)),
        ):
            files[name + kind] = str(folder / f"{name}{kind}.fits")
            fits.writeto(files[name + kind], image.astype(np.float32))
    start = time.perf_counter()
    solution, difference = Customized_Packet.CP(
        FITS_REF=files["reference"],
        FITS_SCI=files["science"],
        FITS_mREF=files["reference chosen"],
        FITS_mSCI=files["science chosen"],
        ForceConv="REF",
        GKerHW=HALF,
        KerPolyOrder=DEGREE,
        BGPolyOrder=0,
        ConstPhotRatio=True,
        BACKEND_4SUBTRACT="Numpy",
        NUM_CPU_THREADS_4SUBTRACT=workers,
        VERBOSE_LEVEL=0,
    )
    seconds = time.perf_counter() - start
    # It counts pixels from 1, columns first.
    rows, cols = given["reference"].shape
    places = given["places"][:, ::-1] + 1.0
    side = 2 * HALF + 1
    realised = Realize_MatchingKernel(places).FromArray(
        np.asarray(solution, float), cols, rows, side, side, DEGREE, 1
    )
    np.save(folder / "kernels.npy", np.transpose(realised, (0, 2, 1)))
    np.save(folder / "difference.npy", difference.T)
    print(seconds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
