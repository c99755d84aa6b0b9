"""The poster's claims, one experiment each, in the order of the poster's sections."""

CLAIMS = (
    "discretisation",
    "acceleration_rule",
    "regimes",
    "plane",
    "mgf_implicit_bias",
    "sparser_than_gradient_flow",
    "small_lambda",
    "initialisation_scale",
    "mirror_flow",
    "smgd_implicit_bias",
    "beyond_diagonal",
    "published_settings",
)
