"""Overnight's pipelines: every step of a machine-learning night, with no Airflow in it."""

__version__ = "0.7.0"
