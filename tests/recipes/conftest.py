"""The recipes are run by `run.py` in environments of their own, never collected as tests."""

collect_ignore_glob = ["*_recipe.py"]
collect_ignore = ["digits.py", "run.py"]
