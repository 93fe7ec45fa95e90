"""What the production form (docker-compose.yaml) runs beside the servers themselves."""
