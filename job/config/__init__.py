"""Every setting of the job, and the command line, recipes and YAML files that set them."""

from job.config.cli import DEFAULT_RECIPE, RECIPES, load_recipe, parse, recipes, run_name
from job.config.flat import as_dict, differing_settings, fields, from_dict, settled, to_yaml
from job.config.settings import BUILT_IN_DATASET, GROUPS, Config, Data, Evaluation, Model, Run, Training
from job.config.suggestions import NOT_OURS

__all__ = [
    "BUILT_IN_DATASET",
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
