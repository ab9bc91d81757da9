# One image for the API, the executor and the migrations; the command selects which one runs.
FROM node:24-slim AS page
WORKDIR /app/web
COPY web/package.json web/package-lock.json ./
COPY web/packages/resumable-chat/package.json packages/resumable-chat/
RUN npm ci --no-audit --no-fund
COPY web ./
RUN npm run build

FROM python:3.13-slim AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN python -m venv /venv
COPY deploy/requirements.lock deploy/requirements.lock
RUN /venv/bin/pip install --require-hashes -r deploy/requirements.lock
COPY pyproject.toml README.md ./
COPY backend backend
COPY executor executor
COPY --from=page /app/backend/api/page backend/api/page
RUN /venv/bin/pip install --no-deps -e . && /venv/bin/python -m compileall -q backend executor

FROM python:3.13-slim
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin copilot \
    && install -d -o 10001 -g 10001 -m 700 /data/files /sandbox
COPY --from=packages /venv /venv
WORKDIR /app
COPY --from=packages /app /app
COPY .env.default schema.prisma ./
COPY deploy/healthcheck.py deploy/healthcheck.py
COPY docs docs
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 HEALTH_PORT=8006
USER 10001:10001
EXPOSE 8006 8008
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["sh", "-c", "exec python deploy/healthcheck.py $HEALTH_PORT"]
CMD ["python", "-m", "backend", "serve"]
