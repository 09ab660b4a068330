"""The commands of the pipeline: `python -m stages.NAME`."""
