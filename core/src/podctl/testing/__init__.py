"""Kit for plugin authors: contract suites and fixtures."""

from __future__ import annotations
