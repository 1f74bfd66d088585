"""What a person or a schedule starts: the command, the Prefect flow, schedules and submissions."""
