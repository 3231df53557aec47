"""Which tests run in this process. Triton reads TRITON_INTERPRET at import: one mode per process.

With TRITON_INTERPRET=1 only the tests marked ``interpreter`` run. Without it all the others do;
those marked ``gpu`` are skipped where there is no CUDA device, and the summary counts them.
"""

import os

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
GPU_TEST = ("gpu_test", True)


def pytest_collection_modifyitems(config, items):
    chosen, others = [], []
    for item in items:
        interpreted = item.get_closest_marker("interpreter") is not None
        (chosen if interpreted == INTERPRETED else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = chosen

    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items:
        import torch

        for item in gpu_items:
            item.user_properties.append(GPU_TEST)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_terminal_summary(terminalreporter):
    if INTERPRETED:
        return
    skipped = [
        report
        for report in terminalreporter.getreports("skipped")
        if GPU_TEST in report.user_properties
    ]
    reasons = sorted({report.longrepr[2].removeprefix("Skipped: ") for report in skipped})
    why = f" ({'; '.join(reasons)})" if reasons else ""
    terminalreporter.write_line(f"GPU tests skipped: {len(skipped)}{why}")
