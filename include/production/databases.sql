-- A database and its owner for Airflow, MLflow and lakeFS, whose migrations must not meet in one database.
-- psql runs this as the superuser at every start; what is there already stays, and passwords become the environment's.
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
\getenv lakefs_password LAKEFS_DB_PASSWORD

-- A statement that fails is logged with its text, and these hold passwords.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';

SELECT format('CREATE ROLE %I LOGIN', name)
  FROM unnest(ARRAY['airflow', 'mlflow', 'lakefs']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE airflow PASSWORD :'airflow_password';
ALTER ROLE mlflow PASSWORD :'mlflow_password';
ALTER ROLE lakefs PASSWORD :'lakefs_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, name)
  FROM unnest(ARRAY['airflow', 'mlflow', 'lakefs']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

-- PostgreSQL lets everybody connect to every database until this is taken back.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', datname) FROM pg_database WHERE datallowconn \gexec
