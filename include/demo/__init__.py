"""A year of flights through Overnight, driven through Airflow's scheduler. See README.md."""
