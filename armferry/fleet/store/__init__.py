"""Hosts, guests, classes and cells in a database: SQLite in one file, or PostgreSQL 15 and newer.

The same tables and statements for both. What is derived (how many hosts of which class, how many
guests in which state) is worked out when something is imported, so that a question reads little.
"""

from armferry.errors import EnvironmentFault

try:
    import sqlalchemy as sqlalchemy
except ImportError as missing:
    raise EnvironmentFault(
        "the fleet's store needs SQLAlchemy, which is not installed here: pip install "
        "'armferry[fleet]'"
    ) from missing
