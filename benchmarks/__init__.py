"""Benchmarks: every claim about speed, fit or privacy as a command that measures it again.

`python -m benchmarks` lists them, `python -m benchmarks NAME... [--quick]` runs them. A module of
this package is a benchmark if it has `run(quick: bool) -> str`: it returns its table as text.
"""
