"""Alembic's entry: migrations run on the connection that the store has open."""

from alembic import context

from armferry.fleet.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
