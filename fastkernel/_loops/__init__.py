"""Jitted loops: arrays in, arrays out, no checks, no threads.

"Loop" names jitted code here, so that "kernel" only ever means the convolution kernel.
"""
