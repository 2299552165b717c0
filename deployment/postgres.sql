-- The databases of the three that write: MLflow, Prefect, the service. Run once, by the image of PostgreSQL.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
CREATE DATABASE events;
