"""Into an AWS account and out of it again: deploy, destroy, diff, doctor."""
