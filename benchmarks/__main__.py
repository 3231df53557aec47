"""`python -m benchmarks`, or `fused-attention` once installed: the command line of `cli`."""

import sys

OURS = ("benchmarks", "fused_attention")


def main() -> None:
    """Run the command line; where a package that it needs is missing, say how to install it."""
    try:
        from .cli import main as run

        run()  # a study is imported when its command runs
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(OURS):
            raise
        print(
            f"error: {error.name} is not installed, which the benchmarks need: "
            "pip install 'fused-attention[benchmarks]'",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
