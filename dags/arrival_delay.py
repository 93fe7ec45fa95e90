"""The Airflow DAGs of the use case in include/use_cases/arrival_delay.yaml."""

from usecase_dags import build

globals().update(build("arrival_delay"))
