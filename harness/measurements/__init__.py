"""Measurements as a suite names them: one module and one line of ``registry.py`` each."""
