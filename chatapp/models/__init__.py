"""Which models exist and how they arrive. No torch here.

`missing` says what a reference still needs, `obtain` brings it and says where it is.
"""

from chatapp.models.catalog import DEFAULT, CatalogEntry, catalog
from chatapp.models.resolve import missing, obtain, resolve

__all__ = ["DEFAULT", "CatalogEntry", "catalog", "missing", "obtain", "resolve"]
