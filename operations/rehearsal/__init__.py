"""A rehearsal of a deployment without an account: what AWS would refuse is found in the templates."""
