"""The HTML report of an output folder: read from records, summaries and events."""
