"""The studies, a folder each. A command of `python -m benchmarks` runs one."""
