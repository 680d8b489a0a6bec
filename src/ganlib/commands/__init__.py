"""The commands, one file each: ``HELP``, ``parser()`` and ``run(options)``. Nothing heavy is imported before a run."""
