"""Benchmarks, in three floors.

present:  shows results: figures, HTML, tables, fitted power laws.
harness:  measures points in processes of their own, and stores rows.
studies:  what is measured: a folder and a command for each study.

`regressions` holds micro-benchmarks for pytest, apart from these.
"""
