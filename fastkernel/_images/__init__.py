"""What an image is to every method: its checks, its borders, its windows, and how it is read.

In come the arguments of users; out go arrays that were checked, windows that say which pixels
belong together, and parts of the image beyond its frame, without a padded copy. Nothing is
estimated or restored here. Of fastkernel it imports `errors`, `_typing`, `_loops` and `_machine`.
"""
