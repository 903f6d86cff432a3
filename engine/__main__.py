"""The program ``nuclix``, and ``python -m nuclix.engine``: light, for every worker process imports it once more."""

import sys


def main() -> int:
    """Run the command line; return its exit code."""
    from nuclix.engine.cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
