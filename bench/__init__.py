"""Benchmarks of fastkernel beside what people use today: ``python -m bench``."""
