"""Figures of the report. Each module turns rows of a run into one figure."""
