"""Comparisons layer by layer: what ``verify`` compares, and a quantized graph against the real one."""
