"""The core: experiments, trials, cohorts, ledger, checkpoints, workers and the driver."""
