"""Exits with 0 if the process on a port of this machine is ready: `python deploy/healthcheck.py PORT`."""

import http.client
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=4)
try:
    connection.request("GET", "/api/chat/health/ready")
    sys.exit(connection.getresponse().status != 200)
except OSError as error:
    sys.exit(str(error))
