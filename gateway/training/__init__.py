"""A site's own surrogate pack from its own images: read them, split them, train, and write pack, figures and card.

    pictures = read_pictures(Path("images"), channels=1)
    train_pack(pictures, Path("site-brain"), Plan(channels=1, task="brain"))

How one network is trained is ``gateway.training.networks``'s business; what a picture is shown as is that of the
pipeline itself, so that the networks see what the mark will be seen in.
"""

from gateway.training.pack import SITE_NETS, Plan, Trained, train_pack
from gateway.training.pictures import Pictures, read_pictures

__all__ = ["SITE_NETS", "Pictures", "Plan", "Trained", "read_pictures", "train_pack"]
