"""Modality profiles, one module each; registered under the entry point group ``miad_gateway.modalities``.

The constant k of the masked threshold: mark.md section 7.1 allows a peak of one noise sd for MR and radiographs and of
twice an RMS of 0.3 sd for CT. A change of one sd of the surrounding noise, with no structure of its own, is what the
noise itself does to a third of the pixels. Where noise is also removed by reconstruction kernels (CT), readers know the
texture well and the smaller factor holds.
"""
