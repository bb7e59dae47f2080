"""Worked examples that also make the embedded model."""
