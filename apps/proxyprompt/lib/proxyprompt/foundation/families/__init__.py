"""One module for each family of foundations: its entries in the registry, and nothing that is slow to import.

To add a foundation, add a module here: docs/how-to/add-a-foundation.md.
"""
