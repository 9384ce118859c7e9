"""The stacks: here the constructs are composed and every permission is granted, one visible line each."""
