"""The constructs: nouns that take typed resources by keyword. Who may do what is said in the stacks."""
