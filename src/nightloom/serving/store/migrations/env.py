"""Runs the migrations on the connection and in the schema that `central` hands over."""

from alembic import context

from nightloom.serving.store.central import VERSIONS

connection, schema = context.config.attributes["connection"], context.config.attributes["schema"]
context.configure(connection=connection, version_table=VERSIONS, version_table_schema=schema, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
