"""`python -m benchmarks`, or `fused-attention` once installed: the command line of `cli`."""

from .cli import main

if __name__ == "__main__":
    main()
