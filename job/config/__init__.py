"""Every setting of the job, and the command line, recipes and YAML files that set them."""

from job.config.cli import DEFAULT_RECIPE, RECIPES, load_recipe, parse, recipes, run_name
from job.config.settings import (
    GROUPS,
    NOT_OURS,
    Config,
    Data,
    Evaluation,
    Model,
    Run,
    Training,
    as_dict,
    differing_settings,
    fields,
    from_dict,
    settled,
    to_yaml,
)

__all__ = [
    "DEFAULT_RECIPE",
    "GROUPS",
    "NOT_OURS",
    "RECIPES",
    "Config",
    "Data",
    "Evaluation",
    "Model",
    "Run",
    "Training",
    "as_dict",
    "differing_settings",
    "fields",
    "from_dict",
    "load_recipe",
    "parse",
    "recipes",
    "run_name",
    "settled",
    "to_yaml",
]
