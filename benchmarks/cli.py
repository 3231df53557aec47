"""Measure attention, decoding, fused ops and whole models here: time, memory, accuracy.

Run as `python -m benchmarks` from a checkout, or as `fused-attention` once installed.
"""

import errno
import sys

import typer

from .harness.isolate import CannotRun
from .harness.options import BadOption
from .studies.accuracy.cli import accuracy
from .studies.decode.cli import decode
from .studies.model.cli import model
from .studies.ops.cli import ops
from .studies.scaling.cli import scaling, theory
from .studies.targets.cli import gpu, targets

# In the order of --help. A new study adds its command.
COMMANDS = (scaling, ops, decode, model, accuracy, targets, gpu, theory)
UsageError = typer.BadParameter.__mro__[1]
INTERRUPTED = 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """The command line: errors are one line, an interrupt says how to go on."""
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        code = _fail(error.format_message())
    except (BadOption, CannotRun) as error:
        code = _fail(str(error))
    except OSError as error:
        if error.errno not in FULL:
            raise
        code = _fail(
            f"cannot write: {error.strerror}; results so far are kept, "
            "make room and run the same command again to go on from here"
        )
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("interrupted: run the same command again to go on from here", file=sys.stderr)
    sys.exit(code or 0)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
