"""Isolators of Linux: what holds an app to its capabilities, system calls and resources."""
