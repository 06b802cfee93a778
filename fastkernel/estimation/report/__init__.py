"""Reports: what a fit found and how far to believe it, as text and as one page of HTML.

`contents` collects what is said; `looks` pictures the residual and its spectrum while it is read;
`untold` finds what the source tells least of; `text` and `page` write it down, the page with the
drawings of `pictures`.

Comes in: a fit, pairs of images, a verdict. Goes out: a string. May import: `display`, `quality`,
and every floor below `estimation`.
"""
