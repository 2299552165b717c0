"""RunConfig: one YAML = one run = the form in Prefect's UI = the parameters in MLflow.

Every key has a title-worthy description and a default; an unknown key is refused. Addresses and
secrets are not here: they come from the environment (`NIGHTLOOM_*`).
"""

from nightloom.config.data_sections import (
    RANDOM,
    DataConfig,
    EventFilterConfig,
    FeatureKind,
    NamedSet,
    PrepareConfig,
    TableName,
    ValidationConfig,
)
from nightloom.config.run import RunConfig, config_from_dict, hash_json, load_config, load_preset, presets
from nightloom.config.section import Section
from nightloom.config.sections import (
    BaselineName,
    ClicksConfig,
    EvaluationConfig,
    ExplainConfig,
    ModelConfig,
    PretrainedConfig,
    PromotionConfig,
    Protocol,
    ScorerName,
    TrainingConfig,
)

__all__ = [
    "RANDOM",
    "BaselineName",
    "ClicksConfig",
    "DataConfig",
    "EvaluationConfig",
    "EventFilterConfig",
    "ExplainConfig",
    "FeatureKind",
    "ModelConfig",
    "NamedSet",
    "PrepareConfig",
    "PretrainedConfig",
    "PromotionConfig",
    "Protocol",
    "RunConfig",
    "ScorerName",
    "Section",
    "TableName",
    "TrainingConfig",
    "ValidationConfig",
    "config_from_dict",
    "hash_json",
    "load_config",
    "load_preset",
    "presets",
]
