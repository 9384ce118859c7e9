"""The system on this machine: its processes, servers and emulated AWS, started and stopped as one."""
