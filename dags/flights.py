"""The Airflow DAGs of the use case in include/use_cases/flights.yaml."""

from usecase_dags import build

globals().update(build("flights"))
