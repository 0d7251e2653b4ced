"""Samplers, time grids and what turns a network's last output into tokens."""
