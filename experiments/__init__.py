"""The claims, one experiment each: the poster's in its order, those about related papers, and
those that go beyond it."""

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
    "perturbed_initialisation",
    "schedules_compared",
    "nesterov",
    "ending_decay",
    "depth",
    "max_margin",
    "sparser_region",
    "saddles",
    "progressive_sharpening",
)
