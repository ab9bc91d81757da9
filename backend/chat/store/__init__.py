"""The rows in Postgres: one module for each table, and modules for what needs several tables."""
