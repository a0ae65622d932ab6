"""The tags in event files: by event of stats.jsonl, the tag of each scalar field."""

SCALARS = {
    "step": {
        "loss_d": "loss/D",
        "loss_g": "loss/G",
        "d_x": "D/x",
        "d_gz_before": "D/G_z_before",
        "d_gz_after": "D/G_z_after",
        "gradient_norm_d": "gradient_norm/D",
        "gradient_norm_g": "gradient_norm/G",
        "learning_rate": "learning_rate",
        "images_per_s": "speed/images_per_s",
        "data_wait_share": "speed/data_wait_share",
        "all_reduce_share": "speed/all_reduce_share",
        "batch_norm_share": "speed/batch_norm_share",
        "wait_share": "speed/wait_share",
    },
    "sample": {"diversity": "quality/diversity", "contrast": "quality/contrast"},
    "checkpoint": {"frechet": "quality/frechet", "real_frechet": "quality/real_frechet"},
    "metrics": {"fid": "quality/fid", "kid": "quality/kid"},
}
# The tag of the image grid of a sample event.
SAMPLES = "samples"


def scalars(line):
    """Tags and values of a line, without fields that are absent or null."""
    fields = SCALARS.get(line["event"], {})
    return [(tag, line[field]) for field, tag in fields.items() if line.get(field) is not None]


def text_tag(line):
    """The tag of an alarm's message."""
    return "alarm/" + line["alarm"]
