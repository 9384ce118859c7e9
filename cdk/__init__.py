"""tickcast's infrastructure: configuration, stacks and the constructs they are composed of."""
