"""The Proxy Prompt app."""

__version__ = "0.1.0"
