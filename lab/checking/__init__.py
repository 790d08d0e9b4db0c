"""Checks while they run in a cell: what they are given, and what becomes of their outcome."""
