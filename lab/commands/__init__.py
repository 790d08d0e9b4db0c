"""The commands, by what they are about; each a docstring and a few lines."""
