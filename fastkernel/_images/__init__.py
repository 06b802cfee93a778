"""Images: what one is to every method. Its checks, its borders, its windows, how it is read.

Comes in: arguments of users. Goes out: arrays that were checked, windows that say which pixels
belong together, and parts of an image beyond its frame, without a padded copy. Nothing is
estimated or restored here. May import: `_machine`, `_loops`.
"""
