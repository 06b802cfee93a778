"""Quality: how far to believe a kernel, told by what it leaves unexplained.

A right kernel leaves what made the result imperfect, and that has no shape of its own: rounding,
at most half a level in every pixel, or noise that knows nothing of the picture. A wrong one leaves
what follows the picture: neighbours that resemble each other, and more where there is detail.

`planes` compares a result with what a kernel predicts, some rows at a time; `facts` measures what
is left; `verdict` says in words what that means.

Comes in: a kernel, its error bars, pairs of images. Goes out: `Facts` and a `Verdict`. May import:
`convolution`, `_images`, `_machine`; within `estimation`, nothing.
"""

from fastkernel.estimation.quality.facts import Facts as Facts
from fastkernel.estimation.quality.facts import Plane as Plane
from fastkernel.estimation.quality.facts import facts_of as facts_of
from fastkernel.estimation.quality.verdict import ROUNDING_RMS as ROUNDING_RMS
from fastkernel.estimation.quality.verdict import Belief as Belief
from fastkernel.estimation.quality.verdict import Verdict as Verdict
from fastkernel.estimation.quality.verdict import judge as judge
