# One image for every service: the API, the orchestrator, Ray's nodes and the MLflow server.
FROM python:3.11-slim

RUN useradd --create-home --uid 1000 scalewise \
    && mkdir -p /data /mlflow \
    && chown scalewise /data /mlflow

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY api api
COPY conf conf
COPY store store
COPY sweeps sweeps
COPY workers workers
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

USER scalewise
WORKDIR /data
