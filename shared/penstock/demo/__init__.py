"""The main job, end to end, on this machine: real requests in, real answers out, and a report of what happened between.

``python -m penstock.demo --help`` says what it takes.
"""
