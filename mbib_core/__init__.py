"""Balanced information bottlenecks for long-tailed recognition."""
