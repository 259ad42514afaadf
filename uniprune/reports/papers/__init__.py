"""Papers' tables: their runs, their printed numbers, and ours."""
