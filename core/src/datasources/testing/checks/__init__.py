"""The groups of checks, each in a module."""
