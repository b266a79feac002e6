#!/bin/sh
# Ends with 0 when the service of this container answers that it can work, with 1 and the reason when not.
set -eu

exec python - "http://127.0.0.1:${PORT:-5000}/api/agent/health" <<'PYTHON'
import http.client
import sys
import urllib.request

# No proxy: the container may name one for the model hub.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(sys.argv[1], timeout=4) as answer:
        answer.read()
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
PYTHON
