"""Sentences of the report: the summary, and what a reader must know to read the numbers."""
