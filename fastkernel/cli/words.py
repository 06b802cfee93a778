"""Words of the command line that several modules know, for which nothing need be imported."""

BOUNDARIES = ("zero", "circular", "replicate", "symmetric", "mirror")

# What describes a blur, before a colon.
BLURS = ("gaussian", "motion", "disk", "box")

KERNEL_FORMS = (
    "a file (.npz as estimate writes it, .npy, .csv or float .tif of taps; .png or whole-number "
    ".tif of grey levels, which are divided by their sum), - for standard input, gaussian:SIGMA, "
    "motion:LENGTH[@ANGLE], disk:RADIUS or box:P[xQ]"
)

SYMMETRIES = ("even", "rotation", "left_right", "up_down", "mirror", "square")

SHELLS = ("bash", "zsh", "fish")
