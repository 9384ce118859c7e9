"""A plugin of LocalStack, which loads it into its own process: functions run as processes, without Docker.

`tickcast_localstack-1.dist-info` announces it: with that folder's parent on PYTHONPATH there is nothing to
install. It imports nothing of the project, whose packages LocalStack's environment does not have.
"""
