# `make help` lists the commands. Everything that they write is below .venv/ and var/.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export DO_NOT_TRACK := 1
# Threads that wait must not spin: trainings beside other work on two cores took several times as long.
export OMP_WAIT_POLICY := PASSIVE

# Tests that start servers and trainings share the machine: more of them at once than this wants more than two cores.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help env demo up down status test lint format bench lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

env: ## build .venv from requirements.lock (nothing happens when it is built)
	@$(PYTHON) include/local/build.py

demo: env ## play the story under Airflow's scheduler; SHORT=1 for fewer nights
	@$(BIN)/python -m include.demo $(if $(SHORT),--short)

up: env ## start Airflow and MLflow; print where they are and how to log in
	@$(BIN)/python -m include.local up

down: ## stop what `make up` started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m include.local down; fi

status: env ## say what is running and where
	@$(BIN)/python -m include.local status

test: env ## every test, WORKERS (2) files at once
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: env ## ruff, mypy --strict on pipelines/, the import contracts, docker-compose.yaml
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml

format: env ## rewrite the code as ruff formats it
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: env ## measure what is in benchmarks/; one table, and var/bench/results.json
	@$(BIN)/python -m benchmarks

lock: env ## resolve requirements.lock anew from pyproject.toml
	@$(BIN)/python include/local/build.py --lock

clean: down ## remove everything but .venv
	@rm -rf var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
