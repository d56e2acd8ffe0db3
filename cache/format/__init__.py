"""What a store holds, as data: arrays, recipes, plan, tables, records."""
