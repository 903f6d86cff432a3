"""Scores of segmented objects against ground truth."""
