"""When: schedules, runs and the child processes they run in. `recsys.pipeline` says what."""
