"""Exporters: a graph or plan as bytes that other programs run."""
