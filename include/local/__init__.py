"""Airflow and MLflow on this machine, for the demo and for trying things out; not for production."""
