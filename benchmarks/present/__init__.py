"""What shows results: figures, HTML, tables, fitted power laws, units. Studies share it."""
