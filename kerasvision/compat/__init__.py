"""Packages whose time is over, for comparison only: nothing else in the project may depend on them."""
