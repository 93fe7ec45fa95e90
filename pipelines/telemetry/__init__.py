"""What is watched, as metrics of OpenTelemetry: numbers out of what is published, shown by a process of its own."""
