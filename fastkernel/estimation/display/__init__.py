"""Display: answers as text, tables and figures. Figures need the extra ``fastkernel[plot]``.

`texts` writes facts and a few taps, for a console and for a notebook; `tables` lays out a kernel
beside its error bars; `plots` puts figures together of what `drawings` draws into a panel each;
`figures` makes those that a notebook shows.

Comes in: kernels, facts, residuals. Goes out: text, HTML, figures of matplotlib. May import:
nothing of `estimation`.
"""

from fastkernel.estimation.display.plots import plot_fit as plot_fit
from fastkernel.estimation.display.plots import plot_inverse as plot_inverse
from fastkernel.estimation.display.plots import plot_recovery as plot_recovery
from fastkernel.estimation.display.texts import answer_html as answer_html
from fastkernel.estimation.display.texts import answer_text as answer_text
from fastkernel.estimation.display.texts import background_fact as background_fact
from fastkernel.estimation.display.texts import bars_fact as bars_fact
from fastkernel.estimation.display.texts import iterations_fact as iterations_fact
