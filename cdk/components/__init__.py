"""The constructs: nouns that take typed resources by keyword. Rights are granted in the stacks."""
