"""Slide readers."""
