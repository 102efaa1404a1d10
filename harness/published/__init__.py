"""Figures that papers print, and the counts that they follow from."""
