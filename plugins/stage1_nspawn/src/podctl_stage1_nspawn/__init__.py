"""The nspawn flavor: pods of any number of apps in namespaces of their own."""

from __future__ import annotations
