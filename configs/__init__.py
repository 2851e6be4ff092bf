"""The recipes (YAML) and the strict loader that reads them."""
