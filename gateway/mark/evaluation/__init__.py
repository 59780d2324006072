"""What a mark did: the packaged held-out classifier, and pictures for the eye."""
