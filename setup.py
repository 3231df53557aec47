"""Package metadata. ``kernels`` and ``benchmarks`` in ``fused_attention`` are symlinks."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"$',
    (ROOT / "fused_attention" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
).group(1)

BENCHMARKS = ["rich", "typer", "pandas", "matplotlib", "psutil", "nvidia-ml-py", "scipy"]
PRETRAINED = ["safetensors"]
PYTEST = ["pytest", "pytest-benchmark", "pytest-xdist", "hypothesis", "expecttest"]
TEST = [*PYTEST, "transformers>=5", *PRETRAINED, *BENCHMARKS]
DEV = ["ruff", "pre-commit", "build", *TEST]

setup(
    name="fused-attention",
    version=VERSION,
    description="Exact tiled attention and fused transformer ops for PyTorch, written in Triton",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["attention", "triton", "pytorch", "gpu", "transformer", "benchmark"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    # A folder without __init__.py (kernels) is a package too, and the finder follows symlinks.
    packages=find_namespace_packages(
        include=["fused_attention", "fused_attention.*"],
        exclude=["*.__pycache__", "*.results", "*.results.*"],
    ),
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.11",
        'triton>=3.6; platform_system == "Linux"',
        "numpy",
    ],
    extras_require={
        "benchmarks": BENCHMARKS,
        "pretrained": PRETRAINED,
        "test": TEST,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": ["fused-attention = fused_attention.benchmarks.__main__:main"],
    },
    zip_safe=False,
)
