"""Executors: one result for each cell, whatever happens."""
