"""The content of a store as data: arrays, recipes, plan, tables, records."""
