"""Conformance suites for plugins: what every reader, post-processor, recipe and writer must do.

Import the suite of a kind (`nuclix.testing.reader`, `.postprocessor`, `.recipe`, `.writer`) in your own
tests. The suites need pytest, which nuclix itself does not.
"""
