"""Example programs that show how other services work with this one."""
