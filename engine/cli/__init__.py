"""The command line: one file a command, each light to import so that `nuclix --help` answers at once."""

from nuclix.engine.cli.main import main

__all__ = ["main"]
