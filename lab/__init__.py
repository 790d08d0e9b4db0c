"""Interop Lab: provisions guests on hypervisors, checks that they work together, publishes what really works."""
